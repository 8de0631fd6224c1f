package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestConfigurationIsThatOfTheFlagTheVariableOrTheSystem(t *testing.T) {
	system := filepath.Join(t.TempDir(), "larder.yaml")
	for _, step := range []struct {
		name, flag string
		env        []string
		want       string
	}{
		{"nothing", "", nil, ""},
		{"flag and variable", "a.yaml", []string{"LARDER_CONFIG=b.yaml"}, "a.yaml"},
		{"variable", "", []string{"LARDER_CONFIG=x.yaml", "LARDER_CONFIG=b.yaml"}, "b.yaml"},
	} {
		if got := (settings{Config: step.flag}).find(step.env, system); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	if err := os.WriteFile(system, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (settings{}).find(nil, system); got != system {
		t.Errorf("the system's file: %q", got)
	}
	if got := (settings{}).find([]string{"LARDER_CONFIG="}, system); got != "" {
		t.Errorf("an empty variable: %q, want no file", got)
	}
}

// The unit of the daemon passes larder.env on as its environment, and the file may change before
// a reload.
func TestReloadReadsTheEnvironmentFileAgain(t *testing.T) {
	const variable = "LARDER_LOG_LEVEL"
	for name, env := range map[string][]string{
		"not in the environment": nil, "also in the environment": {variable + "=debug"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(variable, "") // restores it
			dir := t.TempDir()
			write := func(file, text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("larder.yaml", "listen: 127.0.0.1:5000\n")
			p := &invocation{env: env}
			check := func(want slog.Level, inProcess string) {
				t.Helper()
				cfg, _, err := settings{Config: filepath.Join(dir, "larder.yaml")}.load(p)
				if err != nil {
					t.Fatal(err)
				}
				if cfg.Log.Level != want || os.Getenv(variable) != inProcess {
					t.Errorf("level %v, %q in the process; want %v, %q", cfg.Log.Level, os.Getenv(variable), want, inProcess)
				}
			}
			write("larder.env", variable+"=debug\n")
			check(slog.LevelDebug, "debug")
			write("larder.env", variable+"=warn\n")
			check(slog.LevelWarn, "warn")
			write("larder.env", variable+"='not closed\n")
			check(slog.LevelWarn, "warn")
			if err := os.Remove(filepath.Join(dir, "larder.env")); err != nil {
				t.Fatal(err)
			}
			check(slog.LevelInfo, "")
		})
	}
}

func TestEnvironmentComesBeforeTheEnvironmentFile(t *testing.T) {
	const variable = "LARDER_LOG_LEVEL"
	t.Setenv(variable, "error")
	dir := t.TempDir()
	p := &invocation{env: []string{variable + "=error"}}
	for _, level := range []string{"debug", "warn"} {
		if err := os.WriteFile(filepath.Join(dir, "larder.env"), []byte(variable+"="+level+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		settings{}.readEnvFile(p, filepath.Join(dir, "larder.env"))
		if env := p.environ(); len(env) != 1 || env[0] != variable+"=error" || os.Getenv(variable) != "error" {
			t.Errorf("%s in the file: %q", level, env)
		}
	}
}
