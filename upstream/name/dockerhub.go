package name

import "strings"

const (
	// DockerHub is the host by which clients call Docker Hub.
	DockerHub = "docker.io"
	// DockerHubRegistry is the host that serves Docker Hub's /v2.
	DockerHubRegistry = "registry-1.docker.io"

	dockerHubIndex = "index.docker.io" // of the first version of the protocol
)

// ParseRegistry is [ParseHost] for the host by which clients call a registry. It
// returns the registry's [CanonicalHost].
func ParseRegistry(s string) (host string, ok bool) {
	if host, ok = ParseHost(s); ok {
		host = CanonicalHost(host)
	}
	return host, ok
}

// CanonicalHost returns the one host of a registry that has several: docker.io for
// Docker Hub's, and no port for port 443, which is the default. The host is one that
// [ParseHost] returned, or a [HostPattern].
func CanonicalHost(host string) string {
	host = strings.TrimSuffix(host, ":443")
	if IsDockerHub(host) {
		return DockerHub
	}
	return host
}

// IsDockerHub reports whether a host in lower case is one of Docker Hub's.
func IsDockerHub(host string) bool {
	return host == DockerHub || host == DockerHubRegistry || host == dockerHubIndex
}

// CompleteRepository returns a repository of a host as the host's registry calls
// it: on Docker Hub, busybox is library/busybox.
func CompleteRepository(host, repository string) string {
	if host == DockerHub && !strings.Contains(repository, "/") {
		return "library/" + repository
	}
	return repository
}
