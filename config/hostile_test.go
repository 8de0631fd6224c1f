package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A daemon reads its configuration again while it runs, whatever has taken the file's place.
func TestFilesThatAreNoConfigurationAreRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]string{
		"huge": strings.Repeat("# a\n", 1<<19), "binary": "\x7fELF\x02\x01\x01\x00\x00", "utf16": "\xff\xfel\x00i\x00",
		"nested": strings.Repeat("[", 200_000), "mapped": strings.Repeat("{a: ", 200_000), "tagged": "!!binary ===\n",
		"bomb":    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nupstreams: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
		"cycle":   "upstreams: &a\n- *a\n",
		"merged":  "<<: &a {<<: *a}\n",
		"keys":    "? [a, b]\n: 1\n",
		"twice":   "link: {rate: 1MB}\nlink: {rate: 2MB}\n",
		"escapes": "\"\\e[2J\": 1\n",
	} {
		if err := os.WriteFile(path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		syscall.Mkfifo(path("pipe"), 0o600), os.Mkdir(path("folder"), 0o700),
		os.Symlink("loop", path("loop")), os.Symlink("nowhere", path("dangling")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{
		"huge", "binary", "utf16", "nested", "mapped", "tagged", "bomb", "cycle", "merged", "keys", "twice", "escapes",
		"pipe", "folder", "loop", "dangling", "none", "/dev/zero",
	} {
		if !filepath.IsAbs(file) {
			file = path(file)
		}
		c, err := Load(file)
		if err == nil || c != nil || !strings.HasPrefix(err.Error(), file) || len(err.Error()) > 4000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %.300q", filepath.Base(file), err)
		}
	}
}

// Shells give a command's output as a pipe.
func TestConfigurationMayComeFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.WriteString("link: {rate: 1MB}\n"); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY, 0) // keeps what was written
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	pipe.Close()
	c, err := Load(path)
	if err != nil || c.Link.Rate != 1_000_000 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestStrangeRulesOfTheLineAreRefused(t *testing.T) {
	for _, rule := range []string{
		`background: {hours: "24:00-05:00"}`, `background: {hours: "22:00-24:00"}`, `background: {hours: "-1:00-05:00"}`,
		`background: {hours: "22:00"}`, `background: {hours: "-"}`, `background: {hours: "22:60-05:00"}`,
		`background: {hours: "22:00-05:00-06:00"}`, `background: {hours: " 22:00-05:00"}`, `background: {hours: "２２:00-05:00"}`,
		`background: {hours: 1320}`, `background: {hours: [22, 5]}`, `background: {hours: {from: 22}}`,
		`background: {hours: "22:00:00-05:00:00"}`, `background: {hours: "10pm-5am"}`, `background: {hours: true}`,
		`rate: -1`, `rate: 1e400MB`, `rate: NaN`, `rate: 0.0001B`, `rate: 99999999999999999999GB`, `rate: 10%`, `rate: [1MB]`, `rate: .inf`,
	} {
		l := newLoader("larder.yaml")
		if _, err := l.finish(l.parse([]byte("link: {" + rule + "}\n"))); err == nil || !strings.Contains(err.Error(), "link.") {
			t.Errorf("%s: %v", rule, err)
		}
	}
}
