package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/deploy/deploytest"
)

// completes are command lines, and what a shell offers for their last word.
var completes = []struct {
	line []string
	want []string
}{
	{[]string{"s"}, []string{"scrub", "serve", "stats"}},
	{[]string{"--ver"}, []string{"--verbose", "--version"}},
	{[]string{"access", ""}, []string{"forget", "ls"}},
	{[]string{"access", "ls", "--j"}, []string{"--json"}},
	{[]string{"serve", "--max"}, []string{"--max-size"}},
	{[]string{"completion", ""}, []string{"bash", "fish", "zsh"}},
	{[]string{"serve", "--config", "larder.ya"}, []string{"larder.yaml"}},
	{[]string{"import", "larder.ya"}, []string{"larder.yaml"}},
}

// completionScript writes the script for a shell into a folder that also has a file to complete.
func completionScript(t *testing.T, shell string) (dir, script string) {
	t.Helper()
	dir = t.TempDir()
	var out, stderr strings.Builder
	if status := run(t.Context(), []string{"completion", shell}, nil, strings.NewReader(""), &out, &stderr); status != exitDone {
		t.Fatalf("larder completion %s: exit status %d: %s", shell, status, &stderr)
	}
	script = filepath.Join(dir, "script")
	for path, text := range map[string]string{script: out.String(), filepath.Join(dir, "larder.yaml"): ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, script
}

// offered runs a shell and returns the first words of the lines that it prints, sorted.
func offered(ctx context.Context, t *testing.T, dir, shell string, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(ctx, shell, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", shell, err, out)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 0 {
			all = append(all, words[0])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestBashCompletesTheCommandLine(t *testing.T) {
	bash := deploytest.Require(t, "bash")
	dir, script := completionScript(t, "bash")
	for _, test := range completes {
		// The last line is what bash itself does for "complete -o default".
		command := `source "$0"; COMP_WORDS=(larder "$@"); COMP_CWORD=$#; _larder; printf '%s\n' "${COMPREPLY[@]}"` +
			`; ((${#COMPREPLY[@]})) || compgen -f -- "${@: -1}"`
		got := offered(t.Context(), t, dir, bash, append([]string{"--norc", "-c", command, script}, test.line...)...)
		if !slices.Equal(got, test.want) {
			t.Errorf("larder %q: %q, want %q", test.line, got, test.want)
		}
	}
}

func TestFishCompletesTheCommandLine(t *testing.T) {
	fish := deploytest.Require(t, "fish")
	dir, script := completionScript(t, "fish")
	for _, test := range completes {
		command := fmt.Sprintf("source %s; complete -C 'larder %s'", script, strings.Join(test.line, " "))
		if got := offered(t.Context(), t, dir, fish, "--no-config", "-c", command); !slices.Equal(got, test.want) {
			t.Errorf("larder %q: %q, want %q", test.line, got, test.want)
		}
	}
}

// zsh completes in an interactive shell alone, so that its script is parsed, and loaded with the system of completion.
func TestZshLoadsItsCompletion(t *testing.T) {
	zsh := deploytest.Require(t, "zsh")
	dir, script := completionScript(t, "zsh")
	got := offered(t.Context(), t, dir, zsh, "-f", "-c", `autoload -Uz compinit && compinit -u -D && source "$0" && print -l ${(k)functions[(I)_larder*]} $_comps[larder]`, script)
	for _, want := range []string{"_larder", "_larder_access", "_larder_access_ls", "_larder_serve"} {
		if !slices.Contains(got, want) {
			t.Errorf("zsh has the functions %q, without %s", got, want)
		}
	}
}

func TestCompletionOfAnUnknownShellIsWrongUsage(t *testing.T) {
	var out, stderr strings.Builder
	status := run(t.Context(), []string{"completion", "tcsh"}, nil, strings.NewReader(""), &out, &stderr)
	if status != exitUsage || !strings.Contains(stderr.String(), "must be one of") {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
}
