package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/disk"
	"github.com/larder-registry/larder/cmd/internal/daemon"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy/admin"
)

// folder are the flags that name the cache folder of a command.
type folder struct {
	Config   string  `help:"Configuration file of the daemon ($$LARDER_CONFIG). Default: ${systemConfig} if it exists." type:"path" placeholder:"FILE"`
	CacheDir *string `help:"Folder of the cache. Default: that of the configuration." placeholder:"DIR"`
}

// client sends requests for /api/v1 to the daemon of a cache folder, or to this
// process if no daemon runs.
type client struct {
	http  *http.Client
	close func() error
	alone bool // no daemon runs
}

// with calls work with a client of the folder.
func (f folder) with(p *invocation, work func(*client) error) error {
	cfg, _, err := settings{Config: f.Config, CacheDir: f.CacheDir}.load(p)
	if err != nil {
		return err
	}
	c, err := connect(p, cfg)
	if err != nil {
		return err
	}
	return errors.Join(work(c), c.close())
}

// connect returns a client of the daemon or, if none runs, of the folder.
func connect(p *invocation, cfg *config.Config) (*client, error) {
	c, err := running(p, cfg)
	if errors.Is(err, daemon.ErrNotRunning) || errors.Is(err, daemon.ErrSocketPath) {
		return openFolder(p, cfg)
	}
	return c, err
}

// running returns a client of the daemon. The error is daemon.ErrNotRunning or daemon.ErrSocketPath if
// there is none.
func running(p *invocation, cfg *config.Config) (*client, error) {
	conn, err := daemon.Dial(p.ctx, cfg.Cache.Dir)
	if err == nil {
		return toDaemon(cfg), conn.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("reach the daemon: %w: %s", err, whoMayAsk(cfg.Cache.Dir))
	}
	return nil, fmt.Errorf("reach the daemon: %w", err)
}

// toDaemon returns a client of the daemon that has the cache folder. Each request dials anew.
func toDaemon(cfg *config.Config) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return daemon.Dial(ctx, cfg.Cache.Dir) }
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	return &client{http: &http.Client{Transport: transport}, close: func() error { return nil }}
}

// whoMayAsk says which users the daemon of a cache folder answers.
func whoMayAsk(cacheDir string) string {
	info, err := os.Stat(cacheDir)
	if err != nil {
		return "run the command as root, or as the user that runs the daemon"
	}
	owner := disk.OwnerOf(info)
	u, err := user.LookupId(strconv.Itoa(owner.User))
	if err != nil {
		return fmt.Sprintf("run the command as root, or as user %d", owner.User)
	}
	text := fmt.Sprintf("run the command as root or as %s (sudo -u %[1]s larder ...)", u.Username)
	if g, err := user.LookupGroupId(strconv.Itoa(owner.Group)); err == nil {
		text += fmt.Sprintf("; members of group %s may list and watch", g.Name)
	}
	return text
}

// openFolder opens the folder in this process, which serves the command.
func openFolder(p *invocation, cfg *config.Config) (*client, error) {
	cfg.Log.Level = max(cfg.Log.Level, slog.LevelWarn)
	log := daemon.NewLogger(cfg.Log, p.stderr)
	store, err := daemon.OpenFolder(cfg, log)
	if err != nil {
		return nil, err
	}
	return &client{http: &http.Client{Transport: inProcess{daemon.FolderAPI(cfg, store, log)}}, close: store.Close, alone: true}, nil
}

// do sends a request for /api/v1 and decodes the answer into v, unless v is nil.
func (c *client) do(ctx context.Context, method, what string, query url.Values, v any) error {
	resp, err := c.send(ctx, method, what, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// send sends a request for /api/v1. An answer of 400 or above is an error. The
// caller closes the body.
func (c *client) send(ctx context.Context, method, what string, query url.Values) (*http.Response, error) {
	return c.sendBody(ctx, method, what, query, http.NoBody, 0)
}

// sendBody is send with a body of so many bytes.
func (c *client) sendBody(ctx context.Context, method, what string, query url.Values, body io.Reader, size int64) (*http.Response, error) {
	address := url.URL{Scheme: "http", Host: "larder", Path: "/api/v1/" + what, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, address.String(), body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

// cached returns the names of all images in the cache.
func (c *client) cached(p *invocation) func() ([]string, error) {
	return func() ([]string, error) {
		var images []cache.ImageInfo
		err := c.do(p.ctx, http.MethodGet, "images", nil, &images)
		names := make([]string, len(images))
		for i, img := range images {
			names[i] = img.Name()
		}
		return names, err
	}
}

// pinned returns the names of all pins that a command can remove.
func (c *client) pinned(p *invocation) func() ([]string, error) {
	return func() ([]string, error) {
		var pins []cache.PinInfo
		err := c.do(p.ctx, http.MethodGet, "pins", nil, &pins)
		names := make([]string, len(pins))
		for i, pin := range pins {
			names[i] = pin.Image
		}
		return names, err
	}
}

// scrub has the daemon check everything, and reports the progress.
func (c *client) scrub(p *invocation, progress func(done, total int64)) (cache.ScrubResult, error) {
	resp, err := c.send(p.ctx, http.MethodPost, "scrub", nil)
	if err != nil {
		return cache.ScrubResult{}, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var report admin.ScrubReport
		err := lines.Decode(&report)
		switch {
		case p.ctx.Err() != nil:
			return cache.ScrubResult{}, errors.New("the scrub was interrupted")
		case err != nil:
			return cache.ScrubResult{}, fmt.Errorf("the scrub did not finish: %w", err)
		case report.Error != "":
			return cache.ScrubResult{}, errors.New(report.Error)
		case report.Result != nil:
			return *report.Result, nil
		}
		progress(report.Done, report.Total)
	}
}

// refusal returns the error in an answer.
func refusal(resp *http.Response) error {
	var body struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(resp.Body).Decode(&body) != nil || body.Error == "" {
		body.Error = "the daemon answers " + resp.Status // it has another version
	}
	err := errors.New(body.Error)
	if resp.StatusCode == http.StatusBadRequest {
		return usageError{err}
	}
	return err
}

// printJSON prints v for programs.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
