module hoplab.local/image/gateway-api

go 1.27.0

// Nothing of it is imported: `go mod tidy` would remove this line.
require (
	sigs.k8s.io/gateway-api v1.7.0
)
