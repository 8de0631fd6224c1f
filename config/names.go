package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/upstream/name"
)

// address accepts the host:port of a listener.
func address(to *string) setter {
	return valid(to, "host:port such as 127.0.0.1:5000", func(s string) bool {
		host, port, err := net.SplitHostPort(s)
		if err != nil || port != "0" && !name.IsPort(port) {
			return false
		}
		if strings.Contains(host, ":") {
			_, err := netip.ParseAddr(host) // IPv6, with or without a zone
			return err == nil
		}
		_, ok := name.ParseHost(host)
		return ok || host == ""
	})
}

// hostName accepts a host name or an address, without a port.
func hostName(to *string) setter {
	const want = "a host name such as cache.example.internal or an address, without a port"
	return parsed(to, want, func(s string) (string, bool) {
		if addr, err := netip.ParseAddr(s); err == nil {
			return addr.String(), addr.Zone() == ""
		}
		host, ok := name.ParseHost(s)
		return host, ok && !strings.ContainsAny(host, "[:")
	})
}

func exactHost(to *string) setter {
	return parsed(to, "a host such as docker.io or registry.example.com:5000", name.ParseRegistry)
}

const wantRealm = "the host of a token service such as auth.example.com"

// realmHost accepts the host[:port] of a token service. Unlike a registry's, it is
// taken as it is.
func realmHost(to *string) setter {
	return parsed(to, wantRealm, name.ParseHost)
}

func hostOrPattern(to *name.HostPattern) setter {
	const want = "a host such as registry.example.com:5000 or a pattern such as *.example.com (no * in the last label)"
	return parsed(to, want, name.ParseHostPattern)
}

// regionOrHost accepts a region, or a host with a dot, which no region has.
func regionOrHost(to *string) setter {
	const want = "a region such as eu-west-1, or the host of a registry"
	return parsed(to, want, func(s string) (string, bool) {
		host, ok := name.ParseRegistry(s)
		return host, name.IsRegion(host) || ok && strings.Contains(host, ".")
	})
}

func region(to *string) setter {
	return valid(to, "a region such as us-east-1", name.IsRegion)
}

func repositoryPattern(to *name.RepositoryPattern) setter {
	const want = "a repository such as team/app, or a pattern such as team/*, in lower case"
	return parsed(to, want, name.ParseRepositoryPattern)
}

func pattern(to *name.Pattern) setter {
	const want = "<host>/<repository> with patterns, such as docker.io/library/*, or */* for all"
	return parsed(to, want, name.ParsePattern)
}

// untaggedPattern accepts a pattern, and says why one with a tag is refused.
func untaggedPattern(to *name.Pattern) setter {
	const want = "<host>/<repository> with patterns, such as *.dkr.ecr.*.amazonaws.com/prod/*, and no tag, since a pull by digest has none"
	return parsed(to, want, name.ParsePattern)
}

func taggedPattern(to *name.ImagePattern) setter {
	const want = "an image such as docker.io/library/busybox:1.36, or a pattern such as */team/*:v1*"
	return parsed(to, want, func(s string) (name.ImagePattern, bool) {
		p, err := name.ParseImagePattern(s)
		return p, err == nil && p.MatchesTags()
	})
}

func image(to *name.Image) setter {
	const want = "an image such as docker.io/library/redis:7"
	return parsed(to, want, func(s string) (name.Image, bool) {
		img, err := name.ParseShortImage(s)
		return img, err == nil
	})
}

// platform accepts what containerd takes for a platform, and "all".
func platform(to *string) setter {
	return valid(to, "a platform such as linux/arm64, or all", func(s string) bool {
		_, err := platforms.Parse(s)
		return s == "all" || err == nil
	})
}

// pullThroughPrefix accepts the prefix of a pull-through cache rule (ECR API
// reference, CreatePullThroughCacheRule). It removes a slash at the end.
func pullThroughPrefix(to *string) setter {
	const want = "the prefix of a pull-through cache rule such as docker-hub, or ROOT"
	return parsed(to, want, func(s string) (string, bool) {
		s = strings.TrimSuffix(s, "/")
		return s, s == "ROOT" || s != "" && !strings.HasPrefix(s, "/") && consistsOf(s, lowerCase+digits+"._-/")
	})
}

// httpURL accepts a URL to which a path can be appended. Its errors do not show the
// URL, which may contain a password.
func httpURL(to *string) setter {
	return func(value *yaml.Node) error {
		s, err := text(value, "a URL such as https://registry.example.com")
		if err != nil {
			return err
		}
		u, err := url.Parse(s)
		if err != nil || u.Opaque != "" || u.Scheme != "http" && u.Scheme != "https" {
			return errURL
		}
		host, ok := name.ParseHost(u.Host)
		switch {
		case !ok:
			return errURL
		case u.User != nil:
			return errors.New("expected a URL without user name and password; they belong in auth")
		case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
			return errors.New("expected a URL without query and fragment")
		}
		u.Host = host
		*to = strings.TrimRight(u.String(), "/")
		return nil
	}
}

var errURL = errors.New("expected an http or https URL such as https://registry.example.com")

// registryURL accepts the URL of a registry without /v2.
func registryURL(to *string) setter {
	set := httpURL(to)
	return func(value *yaml.Node) error {
		if err := set(value); err != nil {
			return err
		}
		if strings.HasSuffix(*to, "/v2") {
			return errors.New("expected the URL under which /v2 is, without /v2")
		}
		return nil
	}
}

// maxZone is the length of the longest zone, in bytes.
const maxZone = 64

// peerAddress accepts an IP address by which others can reach this node.
func peerAddress(to *string) setter {
	return parsed(to, "an IP address of this node, such as 10.0.3.7", func(s string) (string, bool) {
		addr, err := netip.ParseAddr(s)
		return addr.Unmap().String(), err == nil && !addr.IsUnspecified() && !addr.IsMulticast() && addr.Zone() == ""
	})
}

// peerToJoin accepts host:port, with or without dns: before it. checkPeers adds the port of gossip where there is
// none.
func peerToJoin(to *string) setter {
	const want = "a node such as 10.0.3.7:5003, or a name such as dns:larder-peers.larder-system.svc"
	return parsed(to, want, func(s string) (string, bool) {
		s = strings.TrimPrefix(s, "dns:")
		if addr, err := netip.ParseAddr(s); err == nil {
			return addr.String(), addr.Zone() == ""
		}
		if at, err := netip.ParseAddrPort(s); err == nil {
			return at.String(), at.Port() != 0
		}
		host, ok := name.ParseHost(s)
		return host, ok
	})
}

// zone accepts what fits into the metadata of gossip, and reads well in metrics.
func zone(to *string) setter {
	want := fmt.Sprintf("a zone such as us-east-1a: %d letters, digits, dots, dashes and underscores at most", maxZone)
	return valid(to, want, func(s string) bool {
		return len(s) <= maxZone && !strings.ContainsFunc(s, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_", r)
		})
	})
}

// bucketName is the form of a bucket's name (Amazon S3 user guide, "General purpose bucket naming rules"), which other
// stores share.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func bucket(to *string) setter {
	return valid(to, "the name of a bucket such as larder-images", func(s string) bool {
		return bucketName.MatchString(s) && !strings.Contains(s, "..")
	})
}

// maxS3Prefix leaves room for the longest names of objects below it: S3 takes 1,024 bytes.
const maxS3Prefix = 128

// s3Prefix is the form of a folder: characters that need no care in names of objects.
var s3Prefix = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)

// prefix accepts a folder of a bucket, with or without slashes around it.
func prefix(to *string) setter {
	return parsed(to, "a folder such as larder/prod, of letters, digits, dots, hyphens and underscores", func(s string) (string, bool) {
		s = strings.Trim(s, "/")
		return s, len(s) <= maxS3Prefix && s3Prefix.MatchString(s)
	})
}
