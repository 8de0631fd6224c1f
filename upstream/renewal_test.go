package upstream

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/reply"
)

// questions are the requests to a registry, each for content that the fake ECR has.
var questions = map[string]func(context.Context, *Registry, digest.Digest) error{
	"manifest": func(ctx context.Context, r *Registry, _ digest.Digest) error {
		_, _, err := r.Manifest(ctx, repo, "v1", false)
		return err
	},
	"head manifest": func(ctx context.Context, r *Registry, _ digest.Digest) error {
		_, _, err := r.Manifest(ctx, repo, "v1", true)
		return err
	},
	"tags": func(ctx context.Context, r *Registry, _ digest.Digest) error {
		_, _, err := r.List(ctx, repo, "tags/list", nil)
		return err
	},
	"blob": func(ctx context.Context, r *Registry, dgst digest.Digest) error {
		part, err := r.OpenBlob(ctx, repo, dgst, Range{Len: 1})
		if err == nil {
			err = part.Body.Close()
		}
		return err
	},
	"has blob": func(ctx context.Context, r *Registry, dgst digest.Digest) error {
		_, err := r.BlobSize(ctx, repo, dgst)
		return err
	},
}

const registryOps = ecrtest.Manifest | ecrtest.Blob | ecrtest.Tags

// refusals are the answers with which ECR refuses a token.
var refusals = map[string]ecrtest.Fault{
	"401":                       {Status: http.StatusUnauthorized, Body: "Not Authorized\n"},
	"400 without a challenge":   {Status: http.StatusBadRequest},
	"400 of ECR Public":         {Status: http.StatusBadRequest, Body: `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`},
	"403 with the expiry text":  {Status: http.StatusForbidden, Body: expiryBody},
	"403 with the older text":   {Status: http.StatusForbidden, Body: `{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired. Please run 'aws ecr get-login --no-include-email' to fetch a new one."}]}`},
	"403 of an invalid token":   {Status: http.StatusForbidden, Body: `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`},
	"400 with the older text":   {Status: http.StatusBadRequest, Body: `{"errors":[{"code":"UNAUTHORIZED","message":"Your Authorization Token has expired."}]}`},
	"a token that really ended": {},
}

const (
	expiryBody = `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`
	denialBody = `{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchGetImage"}]}`
)

func TestTokenIsRenewedOnceWhenItIsRefused(t *testing.T) {
	for refusal, fault := range refusals {
		for question, ask := range questions {
			t.Run(refusal+"/"+question, func(t *testing.T) {
				server := startECR(t, ecrtest.Options{})
				dgst := addBlob(t, server, ecrtest.Bytes([]byte("content")))
				if err := questions["tags"](t.Context(), server.Registry, dgst); err != nil { // so that there is a token
					t.Fatal(err)
				}
				if fault.Status == 0 {
					server.ExpireTokens()
				} else {
					fault.On, fault.Times = registryOps, 1
					if question == "head manifest" && fault.Status != http.StatusUnauthorized {
						fault.Times = 2
					}
					server.Inject(fault)
				}
				if err := ask(t.Context(), server.Registry, dgst); err != nil {
					t.Fatal(err)
				}
				if n := server.Stats().Tokens; n != 2 {
					t.Errorf("%d tokens were issued, want the first and one more", n)
				}
			})
		}
	}
}

func TestDenialDoesNotRenewTheToken(t *testing.T) {
	for question, ask := range questions {
		t.Run(question, func(t *testing.T) {
			server := startECR(t, ecrtest.Options{})
			dgst := addBlob(t, server, ecrtest.Bytes([]byte("content")))
			server.Inject(ecrtest.Fault{On: registryOps, Status: http.StatusForbidden, Body: denialBody})
			err := ask(t.Context(), server.Registry, dgst)
			if !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want %v", err, fs.ErrPermission)
			}
			if err == nil || !strings.Contains(err.Error(), "ecr:BatchGetImage") {
				t.Errorf("%v does not have the registry's words", err)
			}
			if n := server.Stats().Tokens; n != 1 {
				t.Errorf("%d tokens were issued, want 1", n)
			}
		})
	}
}

func TestBadRequestAboutSomethingElseRenewsNothing(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	for _, head := range []bool{false, true} {
		_, _, err := server.Manifest(t.Context(), repo, "not:a:tag", head)
		var refusal *reply.Error
		if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest || refusal.Detail.Message == "" {
			t.Errorf("head %t: %v, want a 400 with its reason", head, err)
		}
	}
	if n := server.Stats().Tokens; n != 1 {
		t.Errorf("%d tokens were issued, want 1", n)
	}
}

func TestRefusalOfTheNewTokenIsFinal(t *testing.T) {
	for question, ask := range questions {
		t.Run(question, func(t *testing.T) {
			server := startECR(t, ecrtest.Options{})
			dgst := addBlob(t, server, ecrtest.Bytes([]byte("content")))
			server.Inject(ecrtest.Fault{On: registryOps, Status: http.StatusUnauthorized})
			if err := ask(t.Context(), server.Registry, dgst); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v, want %v", err, fs.ErrPermission)
			}
			if n := server.Stats().Tokens; n != 2 {
				t.Errorf("%d tokens were issued, want 2", n)
			}
		})
	}
}

func TestManyRequestsWithAnExpiredTokenRenewItOnce(t *testing.T) {
	const clients = 16
	for _, question := range []string{"manifest", "head manifest", "blob"} {
		t.Run(question, func(t *testing.T) {
			server := startECR(t, ecrtest.Options{})
			dgst := addBlob(t, server, ecrtest.Bytes([]byte("content")))
			if err := questions["tags"](t.Context(), server.Registry, dgst); err != nil {
				t.Fatal(err)
			}
			server.ExpireTokens()
			server.ResetStats()
			var arrived, done sync.WaitGroup
			arrived.Add(clients)
			release := server.Inject(ecrtest.Fault{On: registryOps, Times: clients, Hang: true, Notify: arrived.Done})
			for range clients {
				done.Go(func() {
					if err := questions[question](t.Context(), server.Registry, dgst); err != nil {
						t.Error(err)
					}
				})
			}
			arrived.Wait() // with the old token
			release()
			done.Wait()
			if n := server.Stats().Tokens; n != 1 {
				t.Errorf("%d tokens were issued, want 1", n)
			}
		})
	}
}

func TestHEADWithAnExpiredTokenFetchesTheManifestOnce(t *testing.T) {
	server := startECR(t, ecrtest.Options{})
	if err := questions["tags"](t.Context(), server.Registry, ""); err != nil {
		t.Fatal(err)
	}
	server.ExpireTokens()
	server.ResetStats()
	desc, body, err := server.Manifest(t.Context(), repo, "v1", true)
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromString(manifestBody); desc.Digest != want || string(body) != manifestBody {
		t.Errorf("got %s and %q, want %s and the manifest, as it came anyway", desc.Digest, body, want)
	}
	// The HEAD, the GET that tells why, and the GET with the new token.
	want := map[ecrtest.Op]int{ecrtest.API: 1, ecrtest.Manifest: 3}
	if diff := cmp.Diff(want, server.Stats().Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func addBlob(t *testing.T, server *fake, content ecrtest.Content) digest.Digest {
	t.Helper()
	desc, err := server.AddBlob(repo, content)
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}
