package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/reply"
)

func TestErrorBodyIsReadUpToABound(t *testing.T) {
	r, _ := startPlain(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		for {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	err := pull(t, r, repo)
	var refusal *reply.Error
	if !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
		t.Errorf("got %v, want status 404", err)
	}
}

// faults make a request fail that has a token and a signed URL.
var faults = map[string]ecrtest.Fault{
	"refused by the registry":     {On: registryOps, Status: http.StatusForbidden},
	"unknown":                     {On: registryOps, Status: http.StatusNotFound},
	"no answer from the registry": {On: registryOps, Refuse: true},
	"refused by the storage":      {On: ecrtest.Storage, Status: http.StatusForbidden},
	"busy storage":                {On: ecrtest.Storage, Status: http.StatusServiceUnavailable},
	"no answer from the storage":  {On: ecrtest.Storage, Refuse: true},
	"another range":               {On: ecrtest.Storage, Header: http.Header{"Content-Range": {"bytes 7-8/9"}}},
	"no URL":                      {On: ecrtest.Blob, Header: http.Header{"Location": {"http://s3.test/%zz?X-Amz-Signature=secret"}}},
	"a scheme of its own":         {On: ecrtest.Blob, Header: http.Header{"Location": {"s3://s3.test/?X-Amz-Signature=secret"}}},
	"the metadata service":        {On: ecrtest.Blob, Header: http.Header{"Location": {"http://169.254.169.254/?X-Amz-Signature=secret"}}},
	"a port that is closed":       {On: ecrtest.Blob, Header: http.Header{"Location": {"http://127.0.0.1:1/?X-Amz-Signature=secret"}}},
	"a port that is none":         {On: ecrtest.Blob, Header: http.Header{"Location": {"http://127.0.0.1:99999/?X-Amz-Signature=secret"}}},
}

func TestErrorsAndLogsHoldNoSecret(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			server := startECR(t, ecrtest.Options{})
			dgst := addBlob(t, server, ecrtest.Random(1, 1000))
			server.Inject(fault)
			_, err := server.OpenBlob(t.Context(), repo, dgst, Range{Len: 10})
			if err == nil {
				t.Fatal("no error")
			}
			token := tokenOf(t, server.Registry)
			wantNoSecret(t, err.Error(), token)
			wantNoSecret(t, server.log.String(), token)
			st := statusOf(server.Registry)
			if answered := fault.Status == http.StatusNotFound; answered != (st.LastError == "") {
				t.Errorf("the last error is %q", st.LastError)
			}
			wantNoSecret(t, st.LastError, token)
		})
	}
}

func TestErrorOfACancelledRequestHoldsNoSecret(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	dgst := addBlob(t, server, ecrtest.Random(1, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	release := server.Inject(ecrtest.Fault{On: ecrtest.Storage, Hang: true, Notify: cancel})
	defer release()
	_, err := server.OpenBlob(ctx, repo, dgst, Range{Len: 10})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	wantNoSecret(t, err.Error(), tokenOf(t, server.Registry))
}

func wantNoSecret(t *testing.T, text, token string) {
	t.Helper()
	for _, secret := range []string{token, "X-Amz-", "secret", "Basic "} {
		if strings.Contains(text, secret) {
			t.Errorf("%q has %q in it", text, secret)
		}
	}
}

// The registry repeats what it was sent, and a URL that it has signed itself.
func TestErrorsHoldNothingThatTheUpstreamRepeats(t *testing.T) {
	repeat := func(w http.ResponseWriter, r *http.Request) {
		username, password, _ := r.BasicAuth()
		message := fmt.Sprintf("%s of %s, %s, is wrong at https://s3.test/x?X-Amz-Signature=secret", r.Header.Get("Authorization"), username, password)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": "DENIED", "message": message}}})
	}
	storage := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s is wrong"}]}`, r.URL.RawQuery)
	})
	for name, next := range map[string]http.HandlerFunc{
		"registry": repeat,
		"storage": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, storage.URL+"/x?X-Amz-Signature=secret&y=hunter2", http.StatusTemporaryRedirect)
		},
		"a header that is none": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = conn.Write([]byte("HTTP/1.1 307 Temporary Redirect\r\nLocation /x?X-Goog-Signature=secret\r\n\r\n"))
		},
		"a location that is none": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://s3.test:port/%zz?X-Amz-Signature=secret")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		"a range as the whole": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes "+r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusOK)
		},
		"another range": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes "+r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusPartialContent)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
			r, log := startPlain(t, cfg, requireBasic("me", "hunter2", next))
			for name, ask := range questions {
				err := ask(t.Context(), r, someBlob)
				if err == nil {
					continue // the registry has it, wherever it leads to
				}
				for _, text := range []string{err.Error(), log.String(), statusOf(r).LastError} {
					wantNoSecret(t, text, "hunter2")
					if strings.Contains(text, "bWU6aHVudGVyMg==") {
						t.Errorf("%s: %q has the login in it", name, text)
					}
				}
			}
		})
	}
}

// The token service gets the login, the registry its token, and another server none of
// these. Each of the latter two may repeat what the ones before it got.
func TestErrorsHoldNoSecretThatAnotherServerGot(t *testing.T) {
	storage := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"errors":[{"code":"DENIED","message":"hunter2 and tok3n are wrong"}]}`, http.StatusForbidden)
	})
	for name, next := range map[string]http.HandlerFunc{
		"registry": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"hunter2 and tok3n are wrong"}]}`, http.StatusForbidden)
		},
		"storage": redirect(storage.URL),
	} {
		cfg := Config{Username: "me", PasswordFile: passwordFile(t, "hunter2")}
		r, _ := startPlain(t, cfg, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				_, _ = w.Write([]byte(`{"token":"tok3n"}`))
			case r.Header.Get("Authorization") == "Bearer tok3n":
				next(w, r)
			default:
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		err := pull(t, r, repo)
		if err == nil || !strings.Contains(err.Error(), "are wrong") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "tok3n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
