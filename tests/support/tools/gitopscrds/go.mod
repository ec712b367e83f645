module velda.io/apiserver/tests/support/tools/gitopscrds

go 1.26.0

// Their CRDs, which examples/argocd and examples/flux are held against.
require (
	github.com/argoproj/argo-cd/v3 v3.5.7
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/fluxcd/source-controller v1.9.6
)
