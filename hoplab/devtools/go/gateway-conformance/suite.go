//go:build suite

// Package conformance is here for `go mod tidy`: it names what is built from this go.mod, the suite and its server.
package conformance

import _ "sigs.k8s.io/gateway-api/conformance"
