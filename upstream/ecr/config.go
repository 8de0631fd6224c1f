package ecr

import (
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/larder-registry/larder/upstream/dial"
	"github.com/larder-registry/larder/upstream/name"
	"github.com/larder-registry/larder/upstream/offline"
	"github.com/larder-registry/larder/upstream/patience"
	"github.com/larder-registry/larder/upstream/telemetry"
)

// Options are the settings of a [Client].
type Options struct {
	// HTTP sends the requests to AWS. Nil means a client of the SDK's kind.
	HTTP aws.HTTPClient
	// Resolver looks up the names of AWS's hosts, if HTTP is nil.
	Resolver *dial.Resolver
	// Log has the client's reports.
	Log *slog.Logger
	// Now is the clock by which tokens age.
	Now func() time.Time
	// Telemetry counts the calls of AWS's APIs.
	Telemetry *telemetry.Telemetry
	// Places decides how long AWS's answers are waited for. Nil means its own.
	Places *patience.Places
}

// Config describes one registry.
type Config struct {
	// Name is the registry's name in logs.
	Name string
	// Host has the parts of its host. Only Region is needed.
	Host name.ECR
	// Identity is the AWS identity of tokens.
	Identity Identity
	// APIEndpoint is the URL of the ECR API. Empty means AWS's own.
	APIEndpoint string
	// Timeout bounds each call of the API.
	Timeout time.Duration
	// Gate stands before what the registry is asked. AWS is asked for tokens while that
	// of one of the registries that share them is open. Nil means an open one.
	Gate *offline.Gate
}
