// Benthos with the two components that the bench uses (kafka_franz, http_client): what Sluice is compared to.
package main

import (
	"context"
	"net/http"
	"os"
	"strconv"

	_ "github.com/benthosdev/benthos/v4/public/components/io"
	_ "github.com/benthosdev/benthos/v4/public/components/kafka"
	_ "github.com/benthosdev/benthos/v4/public/components/pure"
	"github.com/benthosdev/benthos/v4/public/service"
)

func main() {
	// Its client keeps two idle connections a host, Go's default, and has no option for it: with more requests in flight it connects again and again.
	// BENCH_IDLE shows it without that fault.
	if n, err := strconv.Atoi(os.Getenv("BENCH_IDLE")); err == nil {
		http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = n
	}
	service.RunCLI(context.Background())
}
