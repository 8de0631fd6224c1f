package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/larder/mirror"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/admin"
)

// tell tells the daemon why this node's runtime does not ask it, or that it does. Without a daemon it
// does nothing.
func tell(ctx context.Context, cfg *config.Config, findings []mirror.Finding) error {
	var check admin.MirrorCheck
	for _, f := range findings {
		if !f.OK && !f.InPart {
			check.Faults = append(check.Faults, admin.MirrorFault{What: f.What, Advice: f.Advice})
		}
	}
	body, err := json.Marshal(check)
	if err != nil {
		return err
	}
	resp, err := toDaemon(cfg).sendBody(ctx, http.MethodPut, "mirror", nil, bytes.NewReader(body), int64(len(body)))
	if errors.Is(err, daemon.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
