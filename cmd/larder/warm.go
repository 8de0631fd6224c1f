package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/larder-registry/larder/cmd/internal/daemon/bring"
	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/upstream/name"
)

// warmCommand is "larder warm".
type warmCommand struct {
	folder
	Platform   []string `placeholder:"PLATFORM" help:"A platform to fetch, such as linux/arm64, or all. May be repeated. Without it: the platform of the daemon's machine."`
	File       []string `placeholder:"LIST" help:"A file with one image a line; # begins a comment, - is standard input. May be repeated."`
	Kubernetes []string `placeholder:"FILE" help:"Kubernetes manifests, whose pod specs name the images; - is standard input. May be repeated."`
	Referrers  bool     `help:"Also fetch signatures, attestations and SBOMs: what refers to the images, and cosign's tags."`
	Now        bool     `help:"Fetch as for a client that waits, rather than in the background after the clients. A tag that has moved is followed at once, although tags.cooldown delays it; the log names the user."`
	JSON       bool     `name:"json" help:"Print the results as a JSON array."`
	Images     []string `arg:"" optional:"" name:"image" help:"<host>/<repository>:<tag>, or @<digest>. Short names are completed as Docker does."`
}

// Help is what kong shows below the usage.
func (c *warmCommand) Help() string {
	return "The daemon asks the upstream what each tag names now, and fetches what is missing. Once an image is whole its tag names it for clients. " +
		"An interrupt ends the command; the same command again goes on.\n\n" +
		"    larder warm redis:7 public.ecr.aws/nginx/nginx:1.27\n" +
		"    larder warm --platform linux/amd64 --platform linux/arm64 --file images.txt\n" +
		"    kubectl get pods --all-namespaces -o yaml | larder warm --kubernetes -\n\n" +
		"The exit status is 1 if an image is not whole; the error names it."
}

// Run fetches images.
func (c *warmCommand) Run(p *invocation) error {
	if _, err := bring.ParsePlatforms(c.Platform); err != nil {
		return usageError{fmt.Errorf("--platform: %w", err)}
	}
	images, wrong, err := c.names(p)
	if err != nil {
		return err
	}
	if len(images) == 0 && wrong == nil {
		return usageError{errors.New("expected the images to fetch")}
	}
	if len(images) == 0 {
		return wrong
	}
	return c.with(p, func(client *client) error {
		if client.alone {
			return errors.New("no daemon runs: images are fetched by it, so start \"larder serve\" first")
		}
		shown := newProgress(p.stderr)
		results, err := client.warm(p.ctx, bring.Request{Images: images, Platforms: c.Platform, Referrers: c.Referrers, Now: c.Now}, shown)
		shown.end()
		if err != nil {
			return err
		}
		return errors.Join(wrong, c.print(p, results))
	})
}

// names returns the full names of all images that are asked for, each once. wrong has an error
// for each text that is no image.
func (c *warmCommand) names(p *invocation) (names []string, wrong, err error) {
	var wrongs []error
	known := make(map[string]bool)
	add := func(text, from string) {
		full, err := name.ParseShortImage(text)
		switch {
		case err != nil && from != "":
			wrongs = append(wrongs, fmt.Errorf("%s: %w", from, err))
		case err != nil:
			wrongs = append(wrongs, usageError{err})
		case !known[full.String()]:
			known[full.String()] = true
			names = append(names, full.String())
		}
	}
	for _, list := range c.File {
		images, err := readList(p, list)
		if err != nil {
			return nil, nil, err
		}
		for _, image := range images {
			add(image, list)
		}
	}
	for _, manifests := range c.Kubernetes {
		images, err := readKubernetes(p, manifests)
		if err != nil {
			return nil, nil, err
		}
		for _, image := range images {
			add(image, manifests)
		}
	}
	for _, image := range c.Images {
		add(image, "")
	}
	return names, errors.Join(wrongs...), nil
}

// print prints the results. The error names the images that are not whole.
func (c *warmCommand) print(p *invocation, results []bring.Outcome) error {
	var errs error
	t := new(table)
	t.add("IMAGE", "DIGEST", "PLATFORMS", "SIZE", "FETCHED")
	for _, r := range results {
		if r.Error != "" {
			errs = errors.Join(errs, fmt.Errorf("%s is not whole: %s", r.Image, r.Error))
			continue
		}
		t.add(r.Image, shortDigest(r.Digest), strings.Join(r.Platforms, " "), format.Size(r.Bytes), format.Size(r.Fetched))
	}
	switch {
	case c.JSON:
		return errors.Join(errs, printJSON(p.stdout, results))
	case len(t.rows) == 1:
		return errs
	}
	return errors.Join(errs, t.write(p.stdout, terminalWidth(p.stdout)))
}

// warm has the daemon fetch images, and shows the progress.
func (c *client) warm(ctx context.Context, req bring.Request, shown *progress) ([]bring.Outcome, error) {
	raw, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.sendBody(ctx, http.MethodPost, "warm", nil, bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var report bring.Report
		err := lines.Decode(&report)
		switch {
		case ctx.Err() != nil:
			return nil, errInterrupted
		case err != nil:
			return nil, fmt.Errorf("the daemon ended in the middle of it: %w", err)
		case report.Results != nil:
			return report.Results, nil
		}
		shown.at(bring.Sum(report.Progress))
	}
}
