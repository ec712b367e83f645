// Command gitops says of Kubernetes objects what GitOps tools say of them, by those tools' own libraries: `gitops
// kstatus` is Flux's (and helm's) health, `gitops health SCRIPT` Argo CD's, and `gitops compare OPENAPI` Argo CD's
// comparison; `gitops strict` checks HelmReleases. Each reads JSON values from stdin and answers each with a line of JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"kstatus": kstatus, "health": health, "compare": compare, "strict": strict,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: gitops kstatus | health SCRIPT | compare OPENAPI | strict")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// answer calls one for every value of stdin, and writes what it returns.
func answer[Question, Answer any](one func(Question) (Answer, error)) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var question Question
		if err := in.Decode(&question); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		told, err := one(question)
		if err != nil {
			return err
		}
		if err := out.Encode(told); err != nil {
			return err
		}
	}
}
