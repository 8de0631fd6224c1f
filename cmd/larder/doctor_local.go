package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
)

// configuration reads the configuration, and goes on with it if there is one.
func (e *examination) configuration(s settings, env []string, goOn func(*config.Config)) {
	var cfg *config.Config
	e.step("configuration", nil, func(context.Context) finding {
		var err error
		if cfg, err = s.load(env); err != nil {
			return wrong(err, "Mend these lines. Nothing else can be looked at before that.")
		}
		return fine("%s is valid, with %d upstreams", cmp.Or(s.file(env), "the default configuration"), len(cfg.Upstreams))
	})
	if cfg != nil {
		goOn(cfg)
	}
}

// cacheFolder looks at the folder without touching it.
func (e *examination) cacheFolder(cfg *config.Config) {
	e.step("cache", nil, func(ctx context.Context) finding {
		dir := cfg.Cache.Dir
		at, there, err := existing(dir)
		if err == nil {
			err = unix.Access(at, unix.W_OK|unix.X_OK)
		}
		switch {
		case err != nil && there:
			return wrong(fmt.Errorf("%s cannot be written: %w", dir, err),
				"Give the folder to the user that larder runs as, mount its file system writable, or run doctor as that user.")
		case err != nil:
			return wrong(fmt.Errorf("%s is not there and cannot be made in %s: %w", dir, at, err),
				"Make the folder and give it to the user that larder runs as, or set cache.dir to another one.")
		}
		state := "will be made when larder serve starts"
		if there {
			state = holder(ctx, dir)
		}
		return room(cfg, at, dir+" "+state)
	})
}

// existing is dir, or the nearest folder around it that is there.
func existing(dir string) (at string, there bool, err error) {
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

// holder says who has the folder. It asks by the socket: to try the lock might
// be in the way of a daemon that starts.
func holder(ctx context.Context, dir string) string {
	conn, err := daemon.Dial(ctx, dir)
	switch {
	case errors.Is(err, daemon.ErrSocketPath):
		return "is there; whether a daemon has it cannot be told, as its path is too long for a socket"
	case errors.Is(err, fs.ErrPermission):
		return "belongs to a daemon of another user"
	case err != nil:
		return "is there, and no daemon has it"
	}
	defer conn.Close()
	if pid, err := os.ReadFile(filepath.Join(dir, "larder.lock")); err == nil && len(pid) < 32 {
		return "is in use by larder serve, process " + strings.TrimSpace(string(pid))
	}
	return "is in use by larder serve"
}

// room compares the file system that at is on with what the cache may take.
func room(cfg *config.Config, at, detail string) finding {
	var disk unix.Statfs_t
	if err := unix.Statfs(at, &disk); err != nil {
		return wrong(fmt.Errorf("%s: free space: %w", at, err), "Look at the file system that the folder is on.")
	}
	total, free := int64(disk.Blocks)*disk.Bsize, int64(disk.Bavail)*disk.Bsize
	most, keep := cfg.Cache.MaxSize.Of(total), cfg.Cache.MinFree.Of(total)
	detail = fmt.Sprintf("%s; %s of %s are free, max_size is %s, min_free is %s", detail, size(free), size(total), size(most), size(keep))
	switch {
	case free < keep:
		return warn(detail, "Less is free than min_free says, so new images are only kept in place of old ones. Make room, or lower cache.min_free.")
	case most > total-keep:
		return warn(detail, "The cache can never become as large as max_size: the file system less min_free is smaller. Lower cache.max_size, or use a larger disk.")
	}
	return finding{status: stepOK, detail: detail}
}

// proxies looks at the variables that send requests by a proxy.
func (e *examination) proxies() {
	e.step("proxy", nil, func(context.Context) finding {
		env := httpproxy.FromEnvironment()
		var set []string
		for _, v := range []struct{ name, value string }{{"HTTP_PROXY", env.HTTPProxy}, {"HTTPS_PROXY", env.HTTPSProxy}} {
			if v.value == "" {
				continue
			}
			host, err := proxyHost(v.value)
			if err != nil {
				return wrong(fmt.Errorf("%s is not a proxy's URL", v.name),
					"Set it to a URL such as http://proxy.example.com:3128, in the environment of larder serve too.")
			}
			set = append(set, v.name+" is "+host)
		}
		if len(set) == 0 {
			return notApplicable("HTTP_PROXY and HTTPS_PROXY are not set")
		}
		detail := strings.Join(set, ", ") + "; loopback addresses"
		if env.NoProxy != "" {
			detail += " and NO_PROXY (" + env.NoProxy + ")"
		}
		detail += " are reached directly"
		for _, metadata := range []string{"169.254.169.254", "169.254.170.23"} {
			if to, err := env.ProxyFunc()(&url.URL{Scheme: "http", Host: metadata}); err == nil && to != nil {
				return warn(detail, "Credentials of the instance and of Pod Identity are at 169.254.169.254 and 169.254.170.23, which a proxy cannot reach for this node: add both to NO_PROXY.")
			}
		}
		return finding{status: stepOK, detail: detail}
	})
}

// proxyHost is what may be shown of a proxy's URL, which may hold a password.
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
