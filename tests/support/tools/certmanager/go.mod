module velda.io/apiserver/tests/support/tools/certmanager

go 1.26.0

require github.com/cert-manager/cert-manager v1.21.2 // its CRDs, which the chart's manifests are held against
