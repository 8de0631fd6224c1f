package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/larder-registry/larder/upstream/ecrtest"
	"github.com/larder-registry/larder/upstream/upstreamtest"
)

func askForV1(t *testing.T, r *Registry) error {
	t.Helper()
	_, _, err := r.Manifest(t.Context(), repo, "v1", false)
	return err
}

func TestStatusTellsTheAgeOfATokenAndTheLastAnswer(t *testing.T) {
	f := startECR(t, ecrtest.Options{TokenTTL: 12 * time.Hour})
	before := statusOf(f.Registry)
	if before != (Status{Host: f.Host(), Auth: "ecr"}) {
		t.Errorf("nothing was asked for: %+v", before)
	}
	if err := askForV1(t, f.Registry); err != nil {
		t.Fatal(err)
	}
	after := statusOf(f.Registry)
	if age := time.Since(after.TokenObtained); age < 0 || age > time.Minute {
		t.Errorf("the token was obtained at %v", after.TokenObtained)
	}
	if life := time.Until(after.TokenExpires); life < 11*time.Hour || life > 13*time.Hour {
		t.Errorf("the token expires at %v", after.TokenExpires)
	}
	if time.Since(after.LastAnswer) > time.Minute || after.LastError != "" || after.Throttled || after.TokenError != "" {
		t.Errorf("all is well: %+v", after)
	}
}

func TestStatusTellsWhyThereIsNoToken(t *testing.T) {
	f := startECR(t, ecrtest.Options{})
	upstreamtest.SetAWS(t, "AKIDSTRANGER")
	if err := askForV1(t, f.Registry); err == nil {
		t.Fatal("a stranger was let in")
	}
	st := statusOf(f.Registry)
	if !strings.Contains(st.TokenError, "UnrecognizedClientException") || !strings.Contains(st.LastError, "UnrecognizedClientException") {
		t.Errorf("%+v", st)
	}
	if !st.LastAnswer.IsZero() || st.LastErrorAt.IsZero() || !st.TokenObtained.IsZero() {
		t.Errorf("%+v", st)
	}
}

func TestStatusHasTheLastErrorButNotThatOfALeavingClient(t *testing.T) {
	f := startECR(t, ecrtest.Options{})
	if _, _, err := f.Manifest(t.Context(), repo, "none", false); err == nil {
		t.Fatal("there is such a tag")
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, _, err := f.Manifest(left, repo, "v1", false); err == nil {
		t.Fatal("a client that left got an answer")
	}
	if st := statusOf(f.Registry); st.LastError != "" {
		t.Errorf("the registry did nothing wrong: %+v", st)
	}
	f.Inject(ecrtest.Fault{On: ecrtest.Manifest, Code: "DENIED", Message: "not authorized to perform:\n ecr:BatchGetImage", Status: http.StatusForbidden})
	if err := askForV1(t, f.Registry); err == nil {
		t.Fatal("the fault did not act")
	}
	st := statusOf(f.Registry)
	if !strings.Contains(st.LastError, "not authorized to perform: ecr:BatchGetImage") || st.LastErrorAt.Before(st.LastAnswer) {
		t.Errorf("after a refusal: %+v", st)
	}
}

func TestStatusTellsOfThrottlingUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		refuse := true
		r := startInBubble(t, func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if refuse {
				w.Header().Set("Retry-After", "3")
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = io.WriteString(w, rateExceeded)
				return
			}
			content(w, req)
		})
		asked := make(chan error, 1)
		go func() {
			_, _, err := r.Manifest(t.Context(), repo, "v1", false)
			asked <- err
		}()
		synctest.Wait()
		st := statusOf(r)
		if !st.Throttled || st.Waiting != 1 || st.Rate <= 0 || time.Until(st.PausedUntil) != 3*time.Second {
			t.Errorf("while one waits: %+v", st)
		}
		mu.Lock()
		refuse = false
		mu.Unlock()
		if err := <-asked; err != nil {
			t.Fatal(err)
		}
		if st := statusOf(r); !st.Throttled || st.Waiting != 0 || st.LastError != "" {
			t.Errorf("shortly after: %+v", st)
		}
		pass(time.Minute + time.Second)
		if st := statusOf(r); st.Throttled || st.Rate != 0 || !st.PausedUntil.IsZero() {
			t.Errorf("long after: %+v", st)
		}
	})
}

func TestStatusOfABearerTokenTellsItsEnd(t *testing.T) {
	var endpoint string
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			_, _ = io.WriteString(w, `{"token":"t","expires_in":1000}`)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+endpoint+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			content(w, r)
		}
	})
	endpoint = registry.URL
	c, _ := newTestClient(t, Config{Host: "registry.test", Endpoint: endpoint})
	if _, err := blobBody(t, registryOf(t, c, "registry.test")); err != nil {
		t.Fatal(err)
	}
	all := c.Status()
	if len(all) != 1 || all[0].Host != "registry.test" || all[0].Auth != "bearer" {
		t.Fatalf("%+v", all)
	}
	if life := time.Until(all[0].TokenExpires); life < 14*time.Minute || life > 15*time.Minute {
		t.Errorf("the token is used for another %v", life)
	}
}

func TestStatusListsReplicasToo(t *testing.T) {
	r := startReplicated(t)
	c, _ := newTestClient(t, Config{Host: siteOf(r.Registry).host, Endpoint: r.primary.Endpoint, ECR: ECRConfig{
		APIEndpoint: r.primary.Endpoint, Replicas: []string{r.replica.Host()},
	}})
	registryOf(t, c, siteOf(r.Registry).host)
	of := make(map[string]string)
	for _, st := range c.Status() {
		of[st.Host] = st.ReplicaOf
	}
	if len(of) != 2 || of[siteOf(r.Registry).host] != "" || of[r.replica.Host()] != siteOf(r.Registry).host {
		t.Errorf("%v", of)
	}
}

func TestErrorIsLegibleWhateverTheUpstreamSends(t *testing.T) {
	for _, said := range []string{strings.Repeat("é", maxLegible), "a\n\tb\xff", ""} {
		text := legible(errors.New(said))
		if len(text) > maxLegible+len("…") || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\t") {
			t.Errorf("%q", text)
		}
	}
}
