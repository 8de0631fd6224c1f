package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/upstream/ecrtest"
)

// helloName is the repository of an image that can be run.
const helloName = "team/hello"

// keep prints commands to try on the stage, and waits until ctx ends.
func keep(ctx context.Context, s *stage) error {
	name, runnable := helloName, true
	if err := addHello(s); err != nil {
		fmt.Fprintf(s.out, "\nThe image below can be pulled but not run: %v.\n", err)
		name, runnable = s.images.app.name, false
	}
	hosts := filepath.Join(s.dir, "containerd")
	toml := filepath.Join(hosts, s.ecr.Host(), "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(toml), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("server = \"https://%s\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		s.ecr.Host(), s.larder.addr)
	if err := os.WriteFile(toml, []byte(text), 0o600); err != nil {
		return err
	}
	printCommands(s, name, runnable, hosts, text)
	<-ctx.Done()
	fmt.Fprintln(s.out, "\nEnded.")
	return nil
}

// printCommands prints commands to paste.
func printCommands(s *stage, name string, runnable bool, hosts, toml string) {
	upstream := s.ecr.Host() + "/" + name + ":" + tag // as a deployment names it
	local := s.repository(name) + ":" + tag           // as a client that is configured for no mirror names it
	api := "http://" + s.larder.addr + "/v2/" + s.ecr.Host() + "/" + name
	blob := fmt.Sprintf("http://%s/v2/%s/%s/blobs/%s",
		s.larder.addr, s.ecr.Host(), s.images.app.name, s.images.app.largest().Digest)

	fmt.Fprintf(s.out, "\nThe fake ECR runs again, and Larder in front of it. Try, in another terminal:\n\n")
	fmt.Fprintf(s.out, "containerd, configured by %s/%s/hosts.toml:\n\n", hosts, s.ecr.Host())
	for line := range strings.Lines(toml) {
		fmt.Fprint(s.out, "    # ", line)
	}
	commands := func(title string, pull, run string, more ...string) {
		if title != "" {
			fmt.Fprintf(s.out, "\n%s:\n\n", title)
		}
		fmt.Fprintln(s.out, "    "+pull)
		if runnable && run != "" {
			fmt.Fprintln(s.out, "    "+run)
		}
		for _, line := range more {
			fmt.Fprintln(s.out, "    "+line)
		}
	}
	commands("", "ctr images pull --hosts-dir "+hosts+" "+upstream, "ctr run --rm "+upstream+" hello")
	commands("podman and skopeo", "podman pull --tls-verify=false "+local, "podman run --rm "+local,
		"skopeo inspect --tls-verify=false docker://"+local)
	commands("curl", "curl -s "+api+"/tags/list", "",
		"curl -sI "+blob,
		"curl -s -o /dev/null -D - -H 'Range: bytes=1000-1999' "+blob)
	if s.logs != nil {
		fmt.Fprintf(s.out, "\nLarder's log:\n\n    tail -f %s\n", s.logs.Name())
	}
	fmt.Fprintf(s.out, "\nCtrl-C ends it and removes %s.\n", s.dir)
}

// addHello adds an image to the fake ECR that this machine can run, if it has a statically linked busybox.
func addHello(s *stage) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("this needs the package busybox-static: %w", err)
	}
	if err := requireStatic(path); err != nil {
		return err
	}
	busybox, diffID, err := ecrtest.Busybox(path)
	if err != nil {
		return err
	}
	_, err = s.ecr.AddImage(helloName, tag, ecrtest.Image{
		Layers: []ecrtest.Layer{
			{Content: busybox, MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: diffID},
			{Content: ecrtest.TarLayer("data", 99, 10_000_000)},
		},
		Platforms: []string{"linux/" + runtime.GOARCH},
		Cmd:       []string{"/bin/echo", "hello from the larder"},
	})
	return err
}

// requireStatic returns an error for a program that needs a dynamic linker.
func requireStatic(path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("%s is not statically linked; that of the package busybox-static is", path)
	}
	return nil
}
