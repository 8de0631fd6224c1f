package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
	"github.com/larder-registry/larder/cmd/larder/format"
	"github.com/larder-registry/larder/upstream/name"
)

// exportCommand is "larder export".
type exportCommand struct {
	folder
	Output      string   `short:"o" required:"" placeholder:"FILE" help:"Where to write the bundle; - for standard output."`
	Platform    []string `placeholder:"PLATFORM" help:"A platform to export, such as linux/arm64, or all. May be repeated. Without it: the platforms that are whole in the cache."`
	File        []string `placeholder:"LIST" help:"A file with one image a line; # begins a comment. May be repeated."`
	MissingFrom string   `placeholder:"INVENTORY" help:"Leave out what the site has, by its \"larder inventory\"."`
	Split       string   `placeholder:"SIZE" help:"Write parts of at most this size, such as 4GB: FILE.1, FILE.2 and so on, with the number before the extension."`
	Referrers   bool     `help:"Export signatures, attestations and SBOMs with the images: what refers to them, and cosign's tags."`
	Sign        string   `placeholder:"KEY" help:"Sign the bundle with a private key: a PEM file ($$COSIGN_PASSWORD, if it is encrypted), or awskms://…"`
	JSON        bool     `name:"json" help:"Print what was exported as a JSON object."`
	Images      []string `arg:"" optional:"" name:"image" help:"<host>/<repository>:<tag>, or @<digest>. Short names are completed as Docker does. A name with *, ? or [ is a pattern for images in the cache: see larder ls."`
}

// Help is what kong shows below the usage.
func (c *exportCommand) Help() string {
	return "What is not whole in the cache is fetched first, if a daemon runs. The file is an OCI image layout, which \"larder import\", skopeo, podman, containerd and Docker read. " +
		"The same export from an unchanged cache writes the same bytes, except for the signature.\n\n" +
		"An export that was interrupted leaves FILE.partial. The same command again goes on with it, as it was planned, and fetches what was evicted meanwhile.\n\nExamples:\n\n" +
		"    larder export -o /media/disk/site.tar --platform linux/arm64 --sign fleet.key --file images.txt\n" +
		"    larder export -o delta.tar --split 4GB --missing-from site.json --file images.txt\n" +
		"    larder export -o - '*/team/*:v1' | ssh site larder import -"
}

// Run exports images.
func (c *exportCommand) Run(p *invocation) error {
	e, err := c.prepare(p)
	if err != nil {
		return err
	}
	return c.with(p, func(client *client) error { return e.run(client) })
}

// prepare checks the flags, and opens what they name.
func (c *exportCommand) prepare(p *invocation) (*export, error) {
	e := &export{p: p, json: c.JSON, wanted: exportState{Platforms: c.Platform, Referrers: c.Referrers, Sign: c.Sign}}
	for _, list := range c.File {
		images, err := readList(p, list)
		if err != nil {
			return nil, err
		}
		e.wanted.Images = append(e.wanted.Images, images...)
	}
	e.wanted.Images = append(e.wanted.Images, c.Images...)
	if len(e.wanted.Images) == 0 {
		return nil, usageError{errors.New("expected the images to export")}
	}
	if err := checkPatterns(e.wanted.Images); err != nil {
		return nil, err
	}
	if c.Split != "" {
		size, err := humanize.ParseBytes(c.Split)
		if err != nil || size == 0 || size > 1<<62 {
			return nil, usageError{fmt.Errorf("--split: %q is no size, such as 4GB", c.Split)}
		}
		e.wanted.Split = int64(size)
	}
	var err error
	if e.output, err = newDestination(p, c.Output); err != nil {
		return nil, err
	}
	switch {
	case c.JSON && e.output.isStandardOutput():
		return nil, usageError{errors.New("--json and --output=- cannot both have standard output")}
	case c.Split != "" && e.output.isStream():
		return nil, usageError{fmt.Errorf("--split: parts need names, and %s is not a file", c.Output)}
	}
	if c.Sign != "" {
		if e.signer, err = openSigner(p, c.Sign); err != nil {
			return nil, err
		}
	}
	if c.MissingFrom != "" {
		if err := e.readInventory(c.MissingFrom); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// checkPatterns returns an error for a pattern that is none.
func checkPatterns(images []string) error {
	for _, image := range images {
		if _, err := name.ParseImagePattern(image); name.IsImagePattern(image) && err != nil {
			return usageError{fmt.Errorf("pattern %q: %w", image, err)}
		}
	}
	return nil
}

// export is one run of "larder export".
type export struct {
	p         *invocation
	wanted    exportState
	signer    *sign.Signer      // nil to sign nothing
	inventory *bundle.Inventory // nil if the site has nothing
	output    *destination
	json      bool
}

// readInventory reads what the site has.
func (e *export) readInventory(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	hash := digest.Canonical.Digester()
	if e.inventory, err = bundle.ReadInventory(io.TeeReader(file, hash.Hash())); err != nil {
		return fmt.Errorf("%s: %w: expected a file that \"larder inventory\" wrote at the site", path, err)
	}
	e.wanted.MissingFrom = hash.Digest()
	return nil
}

// run exports: as planned before, if that was interrupted.
func (e *export) run(client *client) error {
	plan, signature, err := e.output.planned(e.wanted)
	if err != nil {
		return err
	}
	var s *exportSession
	if plan != nil {
		fmt.Fprintln(e.p.stderr, "larder: going on with an export that was interrupted")
		s, err = openExport(e.p, client, carry.ExportRequest{Contents: contentsOf(plan), Planned: imagesOf(plan)})
	} else {
		s, plan, err = e.plan(client)
	}
	if err != nil {
		return err
	}
	defer s.close()
	if signature == nil && e.signer != nil {
		if signature, err = e.signer.Sign(e.p.ctx, plan.Description().Raw()); err != nil {
			return err
		}
	}
	files, err := e.output.write(e.p.ctx, e.wanted, plan, signature, s.blob)
	if err != nil {
		if _, wrong := errors.AsType[*bundle.WrongContentError](err); wrong {
			err = fmt.Errorf("%w: the cache has damaged content, which \"larder scrub\" removes", err)
		}
		return err
	}
	return e.report(files, plan.Description())
}

// plan opens a session for the images, and plans what the bundle has.
func (e *export) plan(client *client) (*exportSession, *bundle.Plan, error) {
	var names []string
	err := images{Images: e.wanted.Images}.each(client.cached(e.p), func(image string) error {
		names = append(names, image)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	s, err := openExport(e.p, client, carry.ExportRequest{
		Images: slices.Compact(names), Platforms: e.wanted.Platforms, Referrers: e.wanted.Referrers,
	})
	if err != nil {
		return nil, nil, err
	}
	opts := bundle.Options{
		Manifest: func(d digest.Digest) ([]byte, error) { return s.manifest(e.p.ctx, d) },
		Include:  func(d digest.Digest, _ *ocispec.Platform) bool { return !s.leftOut[d] },
		PartSize: e.wanted.Split,
	}
	if e.inventory != nil {
		opts.Present = e.inventory.Has
	}
	plan, err := bundle.NewPlan(s.images, opts)
	if err != nil {
		s.close()
		return nil, nil, fmt.Errorf("export: %w", err)
	}
	return s, plan, nil
}

// contentsOf lists what a plan writes.
func contentsOf(plan *bundle.Plan) []digest.Digest {
	var all []digest.Digest
	for _, b := range plan.Description().Blobs {
		all = append(all, b.Digest)
	}
	return all
}

// imagesOf lists the images of a plan.
func imagesOf(plan *bundle.Plan) []carry.ExportImage {
	var all []carry.ExportImage
	for _, image := range plan.Description().Images {
		planned := carry.ExportImage{Name: image.Name, Digest: image.Digest}
		for _, r := range image.Referrers {
			planned.Referrers = append(planned.Referrers, r.Digest)
		}
		all = append(all, planned)
	}
	return all
}

// exportSession is an export in the daemon, which holds the images.
type exportSession struct {
	*session
	images  []bundle.Image
	leftOut map[digest.Digest]bool
}

// openExport opens a session, and waits until the daemon has found and fetched the images.
func openExport(p *invocation, client *client, req carry.ExportRequest) (*exportSession, error) {
	opened, err := client.open(p.ctx, "exports", req)
	if err != nil {
		return nil, err
	}
	s := &exportSession{session: opened, leftOut: make(map[digest.Digest]bool)}
	report, err := s.awaitImages(p)
	if err != nil {
		s.close()
		return nil, err
	}
	s.begun(report.ID)
	for _, image := range report.Images {
		carried := bundle.Image{Name: image.Name, Digest: image.Digest, Confirmed: image.Confirmed}
		for _, d := range image.Referrers {
			carried.Referrers = append(carried.Referrers, bundle.Referrer{Digest: d})
		}
		s.images = append(s.images, carried)
		for _, d := range image.LeftOut {
			s.leftOut[d] = true
		}
	}
	return s, nil
}

// awaitImages shows the progress until the daemon has the images.
func (s *exportSession) awaitImages(p *invocation) (carry.ExportReport, error) {
	shown := newProgress(p.stderr)
	defer shown.end()
	for {
		var report carry.ExportReport
		if err := s.next(p.ctx, &report); err != nil {
			return report, err
		}
		switch {
		case report.Error != "":
			return report, errors.New(report.Error)
		case report.Progress == nil:
			return report, nil
		}
		shown.at(report.Progress.Done, report.Progress.Total)
	}
}

// blob is a [bundle.Open].
func (s *exportSession) blob(ctx context.Context, b bundle.Blob) (io.ReadCloser, error) {
	resp, err := s.client.send(ctx, http.MethodGet, s.what+"/blobs/"+string(b.Digest), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (s *exportSession) manifest(ctx context.Context, d digest.Digest) ([]byte, error) {
	r, err := s.blob(ctx, bundle.Blob{Digest: d})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// exported is what an export prints with --json.
type exported struct {
	Files  []exportedFile `json:"files"`
	Images []bundle.Image `json:"images"`
	// Blobs are those in the files, and Present those that the site has; with their bytes.
	Blobs        int   `json:"blobs"`
	Bytes        int64 `json:"bytes"`
	Present      int   `json:"present"`
	PresentBytes int64 `json:"presentBytes"`
}

// exportedFile is a part of a bundle.
type exportedFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // in bytes
}

// report prints what was exported.
func (e *export) report(files []exportedFile, d *bundle.Description) error {
	sum := exported{Files: files, Images: d.Images, Blobs: len(d.Blobs), Bytes: d.Size(), Present: len(d.Present)}
	for _, b := range d.Present {
		sum.PresentBytes += b.Size
	}
	if e.json {
		return printJSON(e.p.stdout, sum)
	}
	out := e.p.stdout
	if e.output.isStandardOutput() {
		out = e.p.stderr
	}
	t := new(table)
	t.add("IMAGE", "DIGEST", "PLATFORMS", "LEFT OUT")
	for _, image := range d.Images {
		t.add(image.Name, shortDigest(image.Digest), platformsOf(image.Platforms), platformsOf(image.LeftOut))
	}
	if err := t.write(out, terminalWidth(out)); err != nil {
		return err
	}
	if sum.Present > 0 {
		if _, err := fmt.Fprintf(out, "%d blobs with %s are left out, since the site has them\n", sum.Present, format.Size(sum.PresentBytes)); err != nil {
			return err
		}
	}
	for _, file := range files {
		if _, err := fmt.Fprintf(out, "wrote %s, %s\n", file.Name, format.Size(file.Size)); err != nil {
			return err
		}
	}
	return nil
}

// platformsOf lists platforms for people.
func platformsOf(children []bundle.Child) string {
	var all []string
	for _, c := range children {
		if c.Platform != "" && c.Platform != "unknown/unknown" { // that of attestations
			all = append(all, c.Platform)
		}
	}
	if all == nil {
		return nothing
	}
	return strings.Join(all, " ")
}
