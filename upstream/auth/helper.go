package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"time"

	helpers "github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"

	"github.com/larder-registry/larder/upstream/reply"
)

// helperAnswer is the answer of a credential helper.
type helperAnswer struct {
	helper string
	login  Login
	err    error
	at     time.Time
}

const (
	// helperTimeout bounds a helper's run. Those of cloud providers ask a service.
	helperTimeout = 10 * time.Second
	// helperLife is how long a login from a helper is used without asking again.
	// Helpers do not tell the life of a login; the shortest is some minutes.
	helperLife = 5 * time.Minute
	// helperPause is the time between two runs of a helper that fails, or whose
	// login is refused.
	helperPause = 10 * time.Second
	// maxHelperOutput bounds what a helper writes, in bytes. The longest tokens
	// are of some kB.
	maxHelperOutput = 64 << 10
)

// fresh reports whether the answer is still used.
func (a helperAnswer) fresh(now time.Time) bool {
	life := helperLife
	if a.err != nil {
		life = helperPause
	}
	return a.helper != "" && now.Sub(a.at) < life
}

// helperName is the form of a helper's name. It becomes part of the name of a
// program that is looked up in $PATH, and must not become a path.
var helperName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// runHelper runs docker-credential-<name> for at most timeout, and returns the
// zero Login if it has none for the server.
func runHelper(ctx context.Context, timeout time.Duration, name, server string) (Login, error) {
	what := fmt.Sprintf("run docker-credential-%.100s for %s", name, server)
	if !helperName.MatchString(name) {
		return Login{}, NewError(what, errors.New("this cannot be the name of a program"))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, reply.ErrTimeout)
	defer cancel()
	var run *helper
	got, err := helpers.Get(func(args ...string) helpers.Program {
		run = newHelper(ctx, "docker-credential-"+name, args)
		return run
	}, server)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return Login{}, nil
	case err != nil:
		return Login{}, NewError(what, run.failure(ctx))
	case got.Username == "<token>": // the form for a refresh token
		return Login{Refresh: got.Secret}, nil
	}
	return Login{Username: got.Username, Password: got.Secret}, nil
}

// helper is one run of a program, with its output bounded.
type helper struct {
	cmd *exec.Cmd
	out bytes.Buffer
	err error // of the run
}

func newHelper(ctx context.Context, program string, args []string) *helper {
	h := &helper{cmd: exec.CommandContext(ctx, program, args...)}
	h.cmd.WaitDelay = time.Second // for a program that the helper started and that keeps its output open
	h.cmd.Stdout = h
	return h
}

// Input is helpers.Program.
func (h *helper) Input(in io.Reader) { h.cmd.Stdin = in }

// Output is helpers.Program.
func (h *helper) Output() ([]byte, error) {
	h.err = h.cmd.Run()
	return h.out.Bytes(), h.err
}

// failure returns the error of a run without anything that the program wrote: some
// write the login before they fail.
func (h *helper) failure(ctx context.Context) error {
	var status *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(h.err, &status):
		return fmt.Errorf("%w; its output may be secret and is not shown: run it by hand to see why", h.err)
	case h.err != nil:
		return h.err
	}
	return errHelperAnswer
}

var (
	errHelperOutput = errors.New("it writes too much")
	errHelperAnswer = errors.New("its answer is not a login in JSON")
)

// Write is io.Writer, for the program's output.
func (h *helper) Write(p []byte) (int, error) {
	if h.out.Len()+len(p) > maxHelperOutput {
		return 0, errHelperOutput
	}
	return h.out.Write(p)
}
