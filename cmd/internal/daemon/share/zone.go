package share

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/larder-registry/larder/upstream/peer/members"
)

// metadataTimeout bounds how long the instance metadata service is asked, which answers within milliseconds where there
// is one. Nobody waits for it but the node's joining of the cluster.
const metadataTimeout = time.Second

// zoneOfInstance returns the availability zone that the instance metadata service tells (version 2, as the SDK asks it: not
// if AWS_EC2_METADATA_DISABLED is true), or "" where there is none.
func zoneOfInstance(ctx context.Context, log *slog.Logger) string {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	client := imds.New(imds.Options{
		Retryer:        aws.NopRetryer{},
		EnableFallback: aws.FalseTernary,
	})
	answer, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: "placement/availability-zone"})
	if err != nil {
		log.Debug("this node has no zone: peers.zone is not set, and there is no instance metadata", "error", err)
		return ""
	}
	defer answer.Content.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Content, members.MaxZone))
	zone := strings.TrimSpace(string(text))
	if err != nil {
		log.Debug("the instance metadata does not tell the zone", "error", err)
		return ""
	}
	log.Info("this node's zone is that of its instance", "zone", zone)
	return zone
}
