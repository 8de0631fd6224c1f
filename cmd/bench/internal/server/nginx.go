package server

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Nginx is nginx as a cache of the upstream. It follows redirects itself, asks the upstream once for all clients that
// wait, and verifies nothing. Its configuration contains the upstream's token, since nginx cannot get one.
func Nginx() *Program {
	return &Program{
		name:    "nginx",
		install: nginxInstalled,
		command: func(ctx context.Context, in place) (*exec.Cmd, error) {
			storage, err := url.Parse(in.upstream.Storage)
			if err != nil {
				return nil, err
			}
			return nginx(ctx, in, strings.NewReplacer(
				"$$REGISTRY", in.upstream.Endpoint,
				"$$STORAGE_HOST", storage.Host,
				"$$SCHEME", storage.Scheme,
				"$$VERIFY", nginxVerify(in.upstream.CAFile()),
				"$$STORAGE", "127.0.0.1:"+storage.Port(),
				"$$TOKEN", in.upstream.Authorization(),
			).Replace(nginxCache))
		},
	}
}

// NginxFiles is nginx with plain files, the fastest that files can be served here.
func NginxFiles() *Program {
	return &Program{
		name:    "nginx-files",
		install: nginxInstalled,
		command: func(ctx context.Context, in place) (*exec.Cmd, error) {
			return nginx(ctx, in, nginxFiles)
		},
		fileOf: func(in place, reference string) string { return filepath.Join(in.dir, "files", reference) },
	}
}

// nginxVerify returns how nginx verifies an upstream with a CA. It names the registry by its address, which the
// certificate has too, and resumes sessions by default.
func nginxVerify(ca string) string {
	if ca == "" {
		return ""
	}
	return fmt.Sprintf("proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate %s;", ca)
}

func nginxInstalled(context.Context, string) error {
	_, err := exec.LookPath("nginx")
	return err
}

// nginx returns nginx with these locations, and with Debian's settings where they matter: a worker for each processor,
// sendfile, and a log of requests.
func nginx(ctx context.Context, in place, locations string) (*exec.Cmd, error) {
	for _, dir := range []string{"cache", "temp", "files"} {
		if err := os.Mkdir(filepath.Join(in.dir, dir), 0o755); err != nil { //nolint:gosec // its workers may be another user
			return nil, err
		}
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // workers must read the folder, which is root's
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

// nginxCache follows a redirect itself, and caches the answer under the path that the client asked for.
const nginxCache = `
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_cache images;
		proxy_cache_key $uri;
		proxy_cache_valid 200 1h;
		proxy_cache_lock on;
		proxy_cache_lock_timeout 1h;
		proxy_cache_lock_age 1h;
		$$VERIFY
		set $signed "";
		location / {
			proxy_pass $$REGISTRY;
			proxy_set_header Authorization "$$TOKEN";
			proxy_intercept_errors on;
			error_page 307 = @storage;
		}
		location @storage {
			if ($upstream_http_location ~ "^https?://[^/]+(/.*)$") { set $signed $1; }
			proxy_pass $$SCHEME://$$STORAGE$signed;
			proxy_set_header Host $$STORAGE_HOST;
		}
`

// nginxFiles serves the file whose name is the last element of the path, which is a tag or a digest.
const nginxFiles = `
		root $$DIR/files;
		location ~ /(?<file>[^/]+)$ { try_files /$file =404; }
`
