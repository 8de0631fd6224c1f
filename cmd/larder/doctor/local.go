package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream/link"
)

// checkConfiguration reads the configuration. It returns nil if that fails.
func checkConfiguration(e *examination, load func() (*config.Config, string, error)) (cfg *config.Config) {
	e.step("configuration", nil, func(context.Context) finding {
		var source string
		var err error
		if cfg, source, err = load(); err != nil {
			cfg = nil
			return failed(err, "Fix these lines first. Nothing else can be examined before that.")
		}
		return passed("%s is valid, with %d upstreams", source, len(cfg.Upstreams))
	})
	return cfg
}

// checkFolder examines the cache folder without changing it.
func checkFolder(e *examination, cfg *config.Config) {
	e.step("cache", nil, func(ctx context.Context) finding {
		dir := cfg.Cache.Dir
		at, exists, err := nearestFolder(dir)
		if err == nil {
			err = unix.Access(at, unix.W_OK|unix.X_OK)
		}
		switch {
		case err != nil && exists:
			return failed(fmt.Errorf("%s cannot be written: %w", dir, err),
				"Give the folder to the user that larder runs as, mount its file system writable, or run doctor as that user.")
		case err != nil:
			return failed(fmt.Errorf("%s does not exist and cannot be created in %s: %w", dir, at, err),
				"Create the folder and give it to the user that larder runs as, or set cache.dir to another one.")
		}
		state := "will be made when larder serve starts"
		if exists {
			state = folderState(ctx, dir)
		}
		return checkSpace(cfg, at, dir+" "+state)
	})
}

// nearestFolder returns dir if it exists, else the nearest folder above it that
// does.
func nearestFolder(dir string) (at string, exists bool, err error) {
	for at = dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return at, at == dir, syscall.ENOTDIR
		case err == nil:
			return at, at == dir, nil
		case !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at):
			return at, at == dir, err
		}
	}
}

// folderState says whether a daemon uses the folder. It tries the socket: taking the
// lock could keep a daemon from starting.
func folderState(ctx context.Context, dir string) string {
	conn, err := daemon.Dial(ctx, dir)
	switch {
	case errors.Is(err, daemon.ErrSocketPath):
		return "exists; its path is too long for a socket, so whether a daemon uses it is not known"
	case errors.Is(err, fs.ErrPermission):
		return "is in use by another user's daemon"
	case err != nil:
		return "exists, and no daemon uses it"
	}
	defer conn.Close()
	if pid, err := os.ReadFile(disk.LockPath(dir)); err == nil && len(pid) < 32 {
		return "is in use by larder serve, process " + strings.TrimSpace(string(pid))
	}
	return "is in use by larder serve"
}

// checkSpace compares the file system that at is on with the cache's limits.
func checkSpace(cfg *config.Config, at, detail string) finding {
	var disk unix.Statfs_t
	if err := unix.Statfs(at, &disk); err != nil {
		return failed(fmt.Errorf("%s: free space: %w", at, err), "Look at the file system that the folder is on.")
	}
	block := int64(disk.Bsize) //nolint:unconvert // it is 32 bits wide on macOS
	total, free := int64(disk.Blocks)*block, int64(disk.Bavail)*block
	maxSize, minFree := cfg.Cache.MaxSize.Of(total), cfg.Cache.MinFree.Of(total)
	detail = fmt.Sprintf("%s; %s of %s are free, max_size is %s, min_free is %s", detail, format.Size(free), format.Size(total), format.Size(maxSize), format.Size(minFree))
	switch {
	case free < minFree:
		return warning(detail, "Less is free than min_free, so old images are evicted to keep new ones. Free some space, or lower cache.min_free.")
	case maxSize > total-minFree:
		return warning(detail, "The cache can never become as large as max_size: the file system less min_free is smaller. Lower cache.max_size, or use a larger disk.")
	}
	return finding{status: OK, detail: detail}
}

// checkLink says what the upstreams may take of the line. Without a rule there is no such step.
func checkLink(e *examination, cfg *config.Config) {
	if rules := daemon.LinkRules(cfg); rules != (link.Rules{}) {
		e.add("link", passed("%s", rules.Now(time.Now())), 0)
	}
}

// checkProxies examines the variables that send requests through a proxy.
func checkProxies(e *examination) {
	e.step("proxy", nil, func(context.Context) finding {
		env := httpproxy.FromEnvironment()
		var set []string
		for _, v := range []struct{ name, value string }{{"HTTP_PROXY", env.HTTPProxy}, {"HTTPS_PROXY", env.HTTPSProxy}} {
			if v.value == "" {
				continue
			}
			host, err := proxyHost(v.value)
			if err != nil {
				return failed(fmt.Errorf("%s is not a proxy's URL", v.name),
					"Set it to a URL such as http://proxy.example.com:3128, in the environment of larder serve too.")
			}
			set = append(set, v.name+" is "+host)
		}
		if len(set) == 0 {
			return skipped("HTTP_PROXY and HTTPS_PROXY are not set")
		}
		detail := strings.Join(set, ", ") + "; loopback, link-local and metadata addresses"
		if env.NoProxy != "" {
			detail += " and NO_PROXY (" + env.NoProxy + ")"
		}
		detail += " are reached directly"
		return finding{status: OK, detail: detail}
	})
}

// proxyHost returns the part of a proxy's URL that may be shown: the URL may hold a
// password.
func proxyHost(raw string) (string, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	if u.Host == "" {
		return "", errors.New("no host")
	}
	return u.Host, nil
}
