module velda.io/apiserver/tests/support/tools/prometheusoperator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0 // its CRDs, which the chart's manifests are held against
