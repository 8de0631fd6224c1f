package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

func TestManualPageHasEveryCommand(t *testing.T) {
	page := func() string {
		var out, stderr strings.Builder
		if status := run(t.Context(), []string{"man"}, nil, strings.NewReader(""), &out, &stderr); status != exitDone {
			t.Fatalf("larder man: exit status %d: %s", status, &stderr)
		}
		return out.String()
	}
	text := page()
	for _, want := range []string{`.SS "larder serve [flags]"`, `.SS "larder access ls [flags]"`, `\fB\-\-max\-size=SIZE\fP`, `\fB\-o, \-\-output=FILE\fP`, `.SH "EXIT STATUS"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page is without %s", want)
		}
	}
	if text != page() {
		t.Error("two pages of the same commands differ")
	}
	mandoc := deploytest.Require(t, "mandoc")
	cmd := exec.CommandContext(t.Context(), mandoc, "-T", "lint", "-W", "error")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
}
