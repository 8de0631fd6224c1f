package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream/name"
)

// verifierCommand is the name under which containerd runs this program as an image verifier: of a link in the
// bin_dir of its plugin io.containerd.image-verifier.v1.bindir (containerd, docs/image-verification.md).
const verifierCommand = "larder-verify"

// verifierTimeout is less than containerd waits for a verifier by default, which is 10 s.
const verifierTimeout = 9 * time.Second

// verifierArgs are the arguments that containerd gives a verifier. Others are ignored: later releases
// may add some.
type verifierArgs struct {
	name   string
	digest digest.Digest
}

// parseVerifierArgs reads -name and -digest in each form of Go's flags.
func parseVerifierArgs(args []string) (parsed verifierArgs) {
	for i := 0; i < len(args); i++ {
		flag, value, given := strings.Cut(args[i], "=")
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		switch flag {
		case "-name", "--name":
			parsed.name = value
		case "-digest", "--digest":
			parsed.digest = digest.Digest(value)
		default:
			continue
		}
		if !given {
			i++
		}
	}
	return parsed
}

// verifyForContainerd is the command as an image verifier: its exit status is 0 if containerd may run
// the image. What it prints on stdout is containerd's reason.
func verifyForContainerd(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithTimeout(ctx, verifierTimeout)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, stdin) // the descriptor says no more than the arguments
	}()
	status := exitDone
	if reason, ok := verifiedForContainerd(&invocation{ctx: ctx, env: env, stdout: stdout, stderr: stderr}, parseVerifierArgs(args)); !ok {
		status = exitFailed
		fmt.Fprintln(stdout, reason)
	}
	select {
	case <-drained:
	case <-ctx.Done():
	}
	return status
}

// verifiedForContainerd reports whether the policy lets an image run, or why not.
func verifiedForContainerd(p *invocation, args verifierArgs) (reason string, ok bool) {
	image, err := name.ParseShortImage(args.name)
	if err != nil {
		return fmt.Sprintf("larder: %v", err), false
	}
	if args.digest.Validate() != nil {
		return fmt.Sprintf("larder: the digest of %s is not valid", image), false
	}
	image.Tag, image.Digest = "", args.digest
	cfg, _, err := settings{}.load(p)
	if err != nil {
		return fmt.Sprintf("larder: the configuration is not valid: %v", err), false
	}
	if rule, covered := cfg.PolicyOf(image.Host, image.Repository); !covered {
		return "", true // nothing the daemon could say would refuse it
	} else if v, err := verify(p, cfg, image); err != nil {
		return fmt.Sprintf("larder: the rule %q covers %s, and the daemon does not answer: %v", rule.Match, image, err), rule.Mode != "enforce"
	} else if !v.Served && v.Decision != nil {
		return "larder: " + v.Decision.String(), false
	} else if !v.Served {
		return fmt.Sprintf("larder: the rule %q covers %s, and no daemon runs that could decide: start it", rule.Match, image), false
	}
	return "", true
}
