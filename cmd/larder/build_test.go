package main

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testVersion is the version that the tests stamp into the binaries they build.
const testVersion = "v0.0.0-test"

// imageBinary builds the binary that the image ships for this machine, once, and returns its path.
// It is what the end-to-end tests run.
var imageBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "larder-binary-")
	if err != nil {
		return "", err
	}
	imageBinaryDir = dir
	return buildImageBinary(context.Background(), dir, runtime.GOARCH)
})

// imageBinaryDir is where imageBinary put its result, and what the suite removes when all tests are over.
var imageBinaryDir string

// The Dockerfile's build command, without the RUN instruction's own options. It ends at a line without a backslash.
var buildInstruction = regexp.MustCompile(`(?m)^RUN ((?:.*\\\n)*?.*\bgo build (?:.*\\\n)*.*)$`)

// buildImageBinary runs the Dockerfile's own build command for a processor, except that the result goes to dir, and
// returns the binary's path.
func buildImageBinary(ctx context.Context, dir, arch string) (string, error) {
	dockerfile, err := os.ReadFile(filepath.Join(repository, "Dockerfile"))
	if err != nil {
		return "", err
	}
	found := buildInstruction.FindAllStringSubmatch(string(dockerfile), -1)
	if len(found) != 1 {
		return "", fmt.Errorf("the Dockerfile has %d instructions that run go build, want 1", len(found))
	}
	const output = "-o /out/larder"
	command := found[0][1]
	if strings.Count(command, output) != 1 {
		return "", fmt.Errorf("the Dockerfile's build command does not say %q: %s", output, command)
	}
	command = strings.Replace(command, output, `-o "$OUT"`, 1)

	out := filepath.Join(dir, "larder-"+arch)
	cmd := exec.CommandContext(ctx, "sh", "-euc", command)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+arch, "VERSION="+testVersion, "OUT="+out)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building for %s: %w\n%s\n%s", arch, err, command, output)
	}
	return out, nil
}

func TestImageBinaryIsStatic(t *testing.T) {
	t.Parallel()
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			path, err := imageBinary()
			if arch != runtime.GOARCH {
				path, err = buildImageBinary(t.Context(), t.TempDir(), arch)
			}
			if err != nil {
				t.Fatal(err)
			}
			file, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if file.Type != elf.ET_EXEC || file.Machine != machine {
				t.Errorf("it is an %v for %v, want an executable for %v", file.Type, file.Machine, machine)
			}
			for _, segment := range file.Progs {
				if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
					t.Errorf("it has a %v segment: it needs a dynamic linker, which the image has not", segment.Type)
				}
			}
			if section := file.SectionByType(elf.SHT_DYNAMIC); section != nil {
				t.Errorf("it has the dynamic section %s", section.Name)
			}
		})
	}
}

// Scanners find nothing else in the image that says what it is made of.
func TestImageBinaryListsItsModules(t *testing.T) {
	path, err := imageBinary()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hasKong := slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "github.com/alecthomas/kong" && m.Sum != "" })
	if info.Main.Path+"/" != module || !hasKong {
		t.Errorf("it says that it is %s, of %d modules", info.Main.Path, len(info.Deps))
	}
}

func TestImageBinaryKnowsItsVersion(t *testing.T) {
	path, err := imageBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "version").CombinedOutput()
	if err != nil {
		t.Fatalf("larder version: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), testVersion) {
		t.Errorf("larder version says %q, want %s in it", out, testVersion)
	}
}

// What of the image needs a builder to be tried is read.
func TestImageContainsOnlyLarderAndDoesNotRunAsRoot(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(repository, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	build, image, found := strings.Cut(string(dockerfile), "\nFROM scratch\n")
	if !found {
		t.Fatal("the image is not made from scratch")
	}
	if want := "FROM --platform=$BUILDPLATFORM "; !strings.Contains(build, "\n"+want) {
		t.Errorf("the compiler is emulated for other processors: there is no %q", want)
	}
	for _, want := range []string{
		`(?m)^USER [1-9]\d*:[1-9]\d*$`, // by number: Kubernetes' runAsNonRoot knows no names
		`(?m)^ENTRYPOINT \["/larder"\]$`,
		`(?m)^COPY .*/etc/ssl/certs/ca-certificates.crt$`,
		`\borg\.opencontainers\.image\.title="larder"`,
		`\borg\.opencontainers\.image\.source="https://`,
		`\borg\.opencontainers\.image\.licenses="Apache-2\.0"`,
		`\borg\.opencontainers\.image\.version="\$VERSION"`,
		`\borg\.opencontainers\.image\.revision="\$REVISION"`,
	} {
		if !regexp.MustCompile(want).MatchString(image) {
			t.Errorf("the image's stage has nothing that matches %s", want)
		}
	}
}
