package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
)

// larder is what "larder serve" runs, in this process. It can be stopped and
// started again.
type larder struct {
	cfg  *config.Config
	log  *slog.Logger
	addr string // where it listens, after a restart too

	patience time.Duration // with other nodes; 0 means a node's own

	end   context.CancelFunc // nil while it does not run
	ended chan error         // how it ended
}

// drain bounds how long answers may go on when Larder is stopped.
const drain = 5 * time.Second

// startLarder returns a larder that serves.
func startLarder(ctx context.Context, cfg *config.Config, log *slog.Logger) (*larder, error) {
	l := &larder{cfg: cfg, log: log}
	return l, l.start(ctx)
}

// start serves until stop is called; ctx bounds the start only.
func (l *larder) start(ctx context.Context) error {
	d, err := daemon.New(ctx, l.cfg, daemon.Options{Version: "demo", Log: l.log, Drain: drain, PeerPatience: l.patience})
	if err != nil {
		return err
	}
	l.addr = d.Addr().String()
	l.cfg.Listen = l.addr // the first free port is kept
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	l.end, l.ended = end, make(chan error, 1)
	go func() { l.ended <- errors.Join(d.Serve(serving), d.Close()) }()
	return nil
}

// stop ends it as SIGTERM does, if it runs. start may follow.
func (l *larder) stop() error {
	if l.end == nil {
		return nil
	}
	l.end()
	l.end = nil
	return <-l.ended
}
