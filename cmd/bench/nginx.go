package main

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginxProxy is nginx as a cache of the upstream: it follows the redirect itself, asks once however many wait, and
// verifies nothing. The token is written into its configuration, since it knows none of its own.
func nginxProxy() *contender {
	return &contender{
		name:  "nginx",
		begin: nginxInstalled,
		start: func(ctx context.Context, l *lab, in place) (*exec.Cmd, error) {
			storage, err := url.Parse(l.upstream.Storage)
			if err != nil {
				return nil, err
			}
			return nginx(ctx, in, strings.NewReplacer(
				"$$REGISTRY", l.upstream.Endpoint,
				"$$STORAGE_HOST", storage.Host,
				"$$STORAGE", "127.0.0.1:"+storage.Port(),
				"$$TOKEN", l.upstream.token,
			).Replace(nginxCache))
		},
	}
}

// nginxStatic is nginx with plain files, which is as fast as files can be served here.
func nginxStatic() *contender {
	return &contender{
		name:  "nginx-files",
		fixed: true,
		begin: nginxInstalled,
		start: func(ctx context.Context, _ *lab, in place) (*exec.Cmd, error) {
			return nginx(ctx, in, nginxFiles)
		},
	}
}

func nginxInstalled(context.Context, *lab) error {
	_, err := exec.LookPath("nginx")
	return err
}

// nginx returns nginx with these locations. It has Debian's settings where they matter: a worker a processor, sendfile,
// and a log of requests.
func nginx(ctx context.Context, in place, locations string) (*exec.Cmd, error) {
	for _, dir := range []string{"cache", "temp", "files"} {
		if err := os.Mkdir(filepath.Join(in.dir, dir), 0o755); err != nil { //nolint:gosec // its workers may be another user
			return nil, err
		}
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the folder is root's
	}
	config := strings.NewReplacer("$$USER", user, "$$LISTEN", in.addr, "$$DIR", in.dir).Replace(
		strings.Replace(nginxMain, "$$LOCATIONS", locations, 1))
	file := filepath.Join(in.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, "nginx", "-p", in.dir, "-c", file, "-e", filepath.Join(in.dir, "error.log")), nil
}

const nginxMain = `$$USER
daemon off;
pid $$DIR/nginx.pid;
error_log $$DIR/error.log;
worker_processes auto;
events { worker_connections 4096; }
http {
	access_log $$DIR/access.log;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000;
	client_body_temp_path $$DIR/temp/body;
	proxy_temp_path $$DIR/temp/proxy;
	fastcgi_temp_path $$DIR/temp/fastcgi;
	uwsgi_temp_path $$DIR/temp/uwsgi;
	scgi_temp_path $$DIR/temp/scgi;
	proxy_cache_path $$DIR/cache levels=1:2 keys_zone=images:10m inactive=1d use_temp_path=off;
	server {
		listen $$LISTEN;
$$LOCATIONS
	}
}
`

// nginxCache: a redirect becomes a request to where it leads, and what comes from there is kept under the first path.
const nginxCache = `
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_cache images;
		proxy_cache_key $uri;
		proxy_cache_valid 200 1h;
		proxy_cache_lock on;
		proxy_cache_lock_timeout 1h;
		proxy_cache_lock_age 1h;
		set $signed "";
		location / {
			proxy_pass $$REGISTRY;
			proxy_set_header Authorization "$$TOKEN";
			proxy_intercept_errors on;
			error_page 307 = @storage;
		}
		location @storage {
			if ($upstream_http_location ~ "^http://[^/]+(/.*)$") { set $signed $1; }
			proxy_pass http://$$STORAGE$signed;
			proxy_set_header Host $$STORAGE_HOST;
		}
`

// nginxFiles: a file is named by the last element of its path, a tag or a digest.
const nginxFiles = `
		root $$DIR/files;
		location ~ /(?<file>[^/]+)$ { try_files /$file =404; }
`

// fixedFile is where a contender of fixed files has one.
func fixedFile(in place, reference string) string { return filepath.Join(in.dir, "files", reference) }
