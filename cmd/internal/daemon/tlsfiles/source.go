// Package tlsfiles serves TLS with a certificate from files. The files may be replaced at any
// time: connections that are open go on, and new ones see the new certificate.
package tlsfiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/larder-registry/larder/proxy/livefile"
)

// Source keeps the TLS settings that files say. Its methods are safe for concurrent use, except
// that one goroutine at a time calls Use.
type Source struct {
	log      *slog.Logger
	failures metric.Int64Counter

	current atomic.Pointer[tls.Config] // of new connections; a handshake reads no file
	inUse   [sha256.Size]byte          // of the files' contents; Run owns it
	*livefile.Follower[Files]
}

// Open reads the files. They must be valid: the error names the one that is not.
func Open(files Files, meter metric.MeterProvider, log *slog.Logger) (*Source, error) {
	s := &Source{log: log}
	if err := s.observe(meter); err != nil {
		return nil, err
	}
	s.Follower = livefile.New(files, s.follow, func(err error) {
		s.failures.Add(context.Background(), 1)
		s.log.Error("the files of tls are not valid; those before stay in use", "error", err)
	})
	_, err := s.load(files)
	return s, err
}

func (s *Source) observe(provider metric.MeterProvider) error {
	meter := provider.Meter("github.com/larder-registry/larder/cmd/internal/daemon/tlsfiles")
	var err1, err2 error
	s.failures, err1 = meter.Int64Counter("larder.tls.reload.failures", metric.WithUnit("{reload}"),
		metric.WithDescription("Files of tls that were replaced by others that are not valid."))
	_, err2 = meter.Float64ObservableGauge("larder.tls.certificate.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the certificate for clients expires; negative after it has expired."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			o.Observe(time.Until(s.certificate().Expires()).Seconds())
			return nil
		}))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	s.failures.Add(context.Background(), 0)
	return nil
}

// Config returns the settings of a listener. It follows the files while Run runs.
func (s *Source) Config() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		GetConfigForClient:     func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil },
	}
}

// follow is load for files that are in use already.
func (s *Source) follow(files Files) error {
	changed, err := s.load(files)
	if changed {
		s.log.Info("the files of tls were read again: new connections use them", "cert", files.Cert,
			"names", s.certificate().Names(), "expires", s.certificate().Expires())
	}
	return err
}

// load puts the files to use if their contents are others and valid.
func (s *Source) load(files Files) (changed bool, err error) {
	read, err := files.read()
	if err != nil || read.sum() == s.inUse {
		return false, err
	}
	config, err := files.parse(read)
	if err != nil {
		return false, err
	}
	s.current.Store(config)
	s.inUse = read.sum()
	if problem := s.certificate().Problem(time.Now()); problem != "" {
		s.log.Warn("clients refuse the certificate, or will: replace it", "problem", problem, "cert", files.Cert)
	}
	return true, nil
}

func (s *Source) certificate() Certificate {
	return Certificate{s.current.Load().Certificates[0].Leaf}
}
