package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// session is an export or an import in the daemon. It lasts until it is closed, or until this
// process ends.
type session struct {
	client *client
	what   string // the path of its requests in /api/v1, once it has an id
	body   io.ReadCloser
	lines  *json.Decoder
}

// open begins a session: with "exports" or "imports", and the request.
func (c *client) open(ctx context.Context, kind string, request any) (*session, error) {
	raw, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	resp, err := c.sendBody(ctx, http.MethodPost, kind, nil, bytes.NewReader(raw), int64(len(raw))) //nolint:bodyclose // the session closes it
	if err != nil {
		return nil, err
	}
	return &session{client: c, what: kind, body: resp.Body, lines: json.NewDecoder(resp.Body)}, nil
}

// next reads the next line of the session's answer.
func (s *session) next(ctx context.Context, v any) error {
	err := s.lines.Decode(v)
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the daemon ended in the middle of it")
	case err != nil:
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

var errInterrupted = errors.New("it was interrupted: the same command again goes on")

// begun sets the id, which is part of the path of further requests.
func (s *session) begun(id string) { s.what += "/" + id }

// close ends the session.
func (s *session) close() { _ = s.body.Close() }
