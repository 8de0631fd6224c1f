package mirror

import (
	"embed"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

//go:embed snippets/*.txt
var snippets embed.FS

// Runtimes returns the runtimes that have a [Snippet].
func Runtimes() []string {
	return []string{"docker", "buildkit", "podman", "crio", "k3s", "nodeadm", "bottlerocket"}
}

// ErrNoRegistries is the error for a runtime whose configuration has no patterns, when
// no registry is named.
var ErrNoRegistries = errors.New("it knows no patterns for registries: name each with --registry")

// Snippet returns what to paste into the configuration of a runtime. hosts is the
// folder of the hosts.toml files, for runtimes that use them.
func Snippet(m Mirror, runtime, hosts string) (string, error) {
	u, err := url.Parse(m.URL)
	if err != nil {
		return "", fmt.Errorf("the URL of the mirror: %w", err)
	}
	name := runtime
	if runtime == "crio" {
		name = "podman" // they have the same configuration
	}
	if strings.HasPrefix(u.Host, "[") && name == "podman" {
		return "", fmt.Errorf("%s cannot pull through %s: the location of a mirror cannot be an IPv6 address. "+
			"Let Larder listen on 127.0.0.1, or give a name with --url", runtime, m.URL)
	}
	if i := slices.IndexFunc(m.Registries, hasPort); i >= 0 && name == "podman" {
		return "", fmt.Errorf("%s cannot pull %s through a mirror: the name of a registry with a port cannot stand in a path",
			runtime, m.Registries[i])
	}
	if why := noOnly[runtime]; m.Only && why != "" {
		return "", fmt.Errorf("%s cannot be kept from asking registries itself: %s", runtime, why)
	}
	if why := noPassword[runtime]; m.Authorization != "" && why != "" {
		return "", fmt.Errorf("%s cannot use a Larder with auth.htpasswd: %s", runtime, why)
	}
	if runtime == "bottlerocket" && m.TLS.ClientCert != "" {
		return "", errors.New("bottlerocket cannot use a Larder with tls.client_ca: its settings have no certificate for a mirror")
	}
	tmpl, err := template.ParseFS(snippets, "snippets/"+name+".txt")
	if err != nil {
		return "", fmt.Errorf("%q is not one of %s", runtime, strings.Join(Runtimes(), ", "))
	}
	if len(m.Registries) == 0 && needsRegistries(runtime) {
		return "", fmt.Errorf("configure %s: %w", runtime, ErrNoRegistries)
	}
	var text strings.Builder
	err = tmpl.Execute(&text, struct {
		Mirror
		Hosts     string
		Authority string
		TLS       bool
		Files     TLS
		Password  bool // but not which: a snippet is shown
	}{m, hosts, u.Host, u.Scheme == "https", m.TLS, m.Authorization != ""})
	return strings.TrimSpace(blankLines.ReplaceAllString(text.String(), "\n\n")) + "\n", err
}

// noOnly says for which runtimes there is nothing like --only, and why.
var noOnly = map[string]string{
	"docker": "its mirrors are asked first, and Docker Hub after them. With the containerd image store, " +
		"run larder mirror --only --containerd-dir /etc/docker/certs.d --containerd-version 1.7",
	"buildkit":     "its mirrors are asked first, and the registry after them. Name images by Larder's address, such as 127.0.0.1:5000/docker.io/library/busybox",
	"bottlerocket": "its settings have mirrors only, and the registry is asked after them. Name images by Larder's address",
}

// noPassword says which runtimes cannot send a password to a mirror, and why.
var noPassword = map[string]string{
	"docker": "it sends a mirror no credentials but Docker Hub's. With the containerd image store, " +
		"run larder mirror --credentials FILE --containerd-dir /etc/docker/certs.d --containerd-version 1.7",
	"bottlerocket": "its settings have credentials for registries only",
}

var blankLines = regexp.MustCompile(`\n{3,}`)

func hasPort(registry string) bool { return strings.Contains(registry, ":") }

func needsRegistries(runtime string) bool {
	return runtime == "buildkit" || runtime == "podman" || runtime == "crio"
}
