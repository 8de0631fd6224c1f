package ecr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPrefixTellsTheRepositoriesThatECRFills(t *testing.T) {
	for _, test := range []struct {
		prefix, repository string
		fills              bool
	}{
		{"docker-hub", "docker-hub/library/busybox", true},
		{"docker-hub", "docker-hub", false},
		{"docker-hub", "docker-hubs/busybox", false},
		{"docker-hub", "team/docker-hub/busybox", false},
		{"mirrors/quay", "mirrors/quay/a", true},
		{"mirrors/quay", "mirrors/a", false},
		{"ROOT", "team/app", true},
		{"quay", "team/app", false},
	} {
		if got := NewPullThrough([]string{"other", test.prefix}).Fills(test.repository); got != test.fills {
			t.Errorf("%s is filled by the rule for %s: %t", test.repository, test.prefix, got)
		}
	}
	if NewPullThrough(nil).Fills("team/app") {
		t.Error("ECR fills a repository without a rule")
	}
}

// asked is a registry below a PullThrough.
type asked struct {
	requests []string
	has      func(reference string) bool // nil means nothing
}

func (a *asked) ask(_ context.Context, reference string, head bool) (ocispec.Descriptor, []byte, error) {
	a.requests = append(a.requests, fmt.Sprint(reference, head))
	if a.has == nil || !a.has(reference) {
		return ocispec.Descriptor{}, nil, fs.ErrNotExist
	}
	return ocispec.Descriptor{Digest: digest.FromString(manifestBody)}, []byte(manifestBody), nil
}

func TestNotFoundIsRepeatedOnceAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a asked
		began := time.Now()
		_, _, err := NewPullThrough([]string{"ROOT"}).Manifest(t.Context(), repo, "v1", true, a.ask)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
		for _, text := range []string{"ecr:BatchImportUpstreamImage", "ecr:CreateRepository", "by tag"} {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%q does not say %q", err, text)
			}
		}
		if took := time.Since(began); took != importPause || len(a.requests) != 2 {
			t.Errorf("asked %v in %v", a.requests, took)
		}
	})
}

func TestDigestThatIsNotThereIsAskedForByItsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := asked{has: func(reference string) bool { return reference == "v1" }}
		p, want := NewPullThrough([]string{"ROOT"}), digest.FromString(manifestBody)
		if _, _, err := p.Manifest(t.Context(), repo, "v1", true, a.ask); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		desc, body, err := p.Manifest(t.Context(), repo, want.String(), false, a.ask)
		if err != nil || desc.Digest != want || string(body) != manifestBody {
			t.Errorf("got %v, %q, %v", desc, body, err)
		}
		if took := time.Since(began); took != 0 || len(a.requests) != 3 {
			t.Errorf("asked %v in %v", a.requests, took)
		}
	})
}

func TestPauseOfAnImportEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), importPause/2)
		defer cancel()
		began := time.Now()
		if _, _, err := NewPullThrough([]string{"ROOT"}).Manifest(ctx, repo, "v1", false, new(asked).ask); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(began); took != importPause/2 {
			t.Errorf("took %v", took)
		}
	})
}
