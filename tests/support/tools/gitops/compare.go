package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	openapi "github.com/google/gnostic-models/openapiv2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/util/proto"
)

// The field manager of Argo CD's applies.
const manager = "argocd-controller"

// comparison has what was rendered, what is live, and what a server-side apply of the one over the other would make.
type comparison struct {
	Desired unstructured.Unstructured `json:"desired"`
	Live    unstructured.Unstructured `json:"live"`
	DryRun  json.RawMessage           `json:"dryRun"`
}

type difference struct {
	Live      json.RawMessage `json:"live"`
	Predicted json.RawMessage `json:"predicted"`
}

// compare answers with the differences found in each of the ways that Argo CD has; none when it calls both the same.
func compare(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("compare takes the API server's /openapi/v2 as a file")
	}
	types, err := parser(arguments[0])
	if err != nil {
		return err
	}
	return answer(func(asked comparison) (map[string]difference, error) {
		ways := map[string][]diff.Option{
			"three-way merge":            {},
			"structured merge":           {diff.WithStructuredMergeDiff(true)},
			"server-side":                {diff.WithServerSideDiff(true)},
			"server-side, with webhooks": {diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(false)},
		}
		found := map[string]difference{}
		for way, options := range ways {
			options = append(options, diff.WithGVKParser(types), diff.WithManager(manager),
				diff.WithServerSideDryRunner(dryRun(asked.DryRun)))
			result, err := diff.Diff(asked.Desired.DeepCopy(), asked.Live.DeepCopy(), options...)
			if err != nil {
				return nil, err
			}
			if result.Modified {
				found[way] = difference{Live: result.NormalizedLive, Predicted: result.PredictedLive}
			}
		}
		return found, nil
	})
}

// dryRun is what the API server has answered already.
type dryRun string

func (answer dryRun) Run(context.Context, *unstructured.Unstructured, string) (string, error) {
	return string(answer), nil
}

func parser(path string) (*managedfields.GvkParser, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	document, err := openapi.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		return nil, err
	}
	return managedfields.NewGVKParser(models, false)
}
