package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/cache/bundle/sign"
	"github.com/larder-registry/larder/cmd/internal/daemon/carry"
	"github.com/larder-registry/larder/cmd/larder/format"
)

// importCommand is "larder import".
type importCommand struct {
	folder
	Verify  []string  `placeholder:"KEY" help:"Require a signature by this public key, beside import.verify of the daemon: a PEM file, or awskms://… May be repeated: one of the keys has to have signed."`
	DryRun  bool      `help:"Show what would be imported and the space that it takes. Change nothing."`
	NoPin   bool      `help:"Let the images be evicted as others are. Without it they are pinned."`
	Replace replacing `placeholder:"first" help:"Unpin the images of earlier bundles that this one does not have, once its own are visible; or with --replace=first, before anything is imported, so that their space can be had."`
	AsLocal bool      `help:"Import images whose digests are not those of their registry, such as those saved from Docker's own storage. Their tags are never compared with the registry, until they are imported without this, or removed."`
	JSON    bool      `name:"json" help:"Print what was done as a JSON array, with an object for each bundle."`
	Files   []string  `arg:"" name:"file" help:"A bundle, all parts of one, or an OCI layout: a tar, tar.gz, tar.zst or a folder; - for standard input."`
}

// Help is what kong shows below the usage.
func (c *importCommand) Help() string {
	return "An image becomes visible once all of it is here and verified. An import that was interrupted leaves what is complete: the same command again goes on.\n\n" +
		"The daemon requires a signature if its configuration has import.verify. The exit status is 1 if an image was not imported.\n\nExamples:\n\n" +
		"    larder import --dry-run /media/disk/site.tar\n" +
		"    larder import --verify fleet.pub --replace /media/disk/site.*.tar\n" +
		"    ssh hq larder export -o - redis:7 | larder import -"
}

// replacing is the value of --replace, which may stand without one.
type replacing carry.Replace

// IsBool is for kong: the flag may have no value.
func (r *replacing) IsBool() bool { return true }

// Decode is for kong.
func (r *replacing) Decode(ctx *kong.DecodeContext) error {
	*r = replacing(carry.ReplaceAfter)
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	switch value := ctx.Scan.Pop().String(); value {
	case "first":
		*r = replacing(carry.ReplaceFirst)
	default:
		return fmt.Errorf("expected --replace or --replace=first, not %q", value)
	}
	return nil
}

// Run imports images.
func (c *importCommand) Run(p *invocation) error {
	i := &importer{importCommand: c, p: p}
	for _, key := range c.Verify {
		v, err := carry.OpenVerifier(p.ctx, key)
		if err != nil {
			return err
		}
		i.keys = append(i.keys, v)
	}
	groups, err := i.group()
	if err != nil {
		return err
	}
	return c.with(p, func(client *client) error {
		var errs error
		all := []imported{}
		for _, g := range groups {
			done, err := i.importGroup(client, g)
			if err != nil {
				errs = errors.Join(errs, fmt.Errorf("import %s: %w", g.name(), err))
			}
			if done != nil {
				all = append(all, *done)
			}
			if p.ctx.Err() != nil {
				break
			}
		}
		if c.JSON {
			errs = errors.Join(errs, printJSON(p.stdout, all))
		}
		return errs
	})
}

// importer is one run of "larder import".
type importer struct {
	*importCommand
	p    *invocation
	keys []*sign.Verifier // of --verify
}

// imported is what was done with a bundle, as --json prints it.
type imported struct {
	Files    []string            `json:"files"`
	SignedBy string              `json:"signedBy,omitempty"` // the key of the site
	Space    *cache.ImportSpace  `json:"space,omitempty"`
	Images   []carry.ImportImage `json:"images"`
	Unpinned []string            `json:"unpinned,omitempty"`
}

// group opens the files once, and puts the parts of each bundle together. What it tells about
// a file that can be read again is complete.
func (i *importer) group() ([]*importGroup, error) {
	var groups []*importGroup
	if at := slices.Index(i.Files, standardStream); at >= 0 && slices.Contains(i.Files[at+1:], standardStream) {
		return nil, usageError{errors.New("standard input can be read once: expected one -")}
	}
	for _, path := range i.Files {
		in, err := openInput(i.p, path)
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", path, err)
		}
		described := in.description()
		if len(i.keys) > 0 {
			if err := i.verify(in); err != nil {
				return nil, fmt.Errorf("import %s: %w", path, errors.Join(err, in.close()))
			}
		}
		at := slices.IndexFunc(groups, func(g *importGroup) bool {
			return described != nil && g.description != nil && bytes.Equal(g.description.Raw(), described.Raw())
		})
		if at < 0 {
			at = len(groups)
			groups = append(groups, &importGroup{description: described})
		}
		groups[at].inputs = append(groups[at].inputs, in)
	}
	return groups, nil
}

// verify ensures that one of the keys of --verify has signed.
func (i *importer) verify(in *input) error {
	if in.description() == nil {
		return errors.New("--verify requires a signature, and only bundles have one: this is a layout of another tool")
	}
	if _, err := sign.Verify(in.description().Raw(), in.documents().Signature(), i.keys...); err != nil {
		return &bundle.EntryError{Name: bundle.SignatureFile, Err: err}
	}
	return nil
}

// importGroup is a bundle with some of its parts, or a layout.
type importGroup struct {
	description *bundle.Description // nil for a layout
	inputs      []*input
}

// name is that of the files, for people and for the pins.
func (g *importGroup) name() string {
	var names []string
	for _, in := range g.inputs {
		names = append(names, in.path)
	}
	return strings.Join(names, ", ")
}

// bundleName is what the daemon calls the bundle.
func (g *importGroup) bundleName() string {
	if path := g.inputs[0].path; path != standardStream {
		return filepath.Base(path)
	}
	return "standard input"
}

// importGroup imports a bundle. What it returns is of use after an error too, or nil.
func (i *importer) importGroup(client *client, g *importGroup) (done *imported, err error) {
	defer func() {
		for _, in := range g.inputs {
			err = errors.Join(err, in.close())
		}
	}()
	s, err := openImport(i.p.ctx, client, carry.ImportRequest{
		Bundle: g.bundleName(), NoPin: i.NoPin, AsLocal: i.AsLocal, DryRun: i.DryRun, Replace: carry.Replace(i.Replace),
	})
	if err != nil {
		return nil, err
	}
	defer s.close()
	done = &imported{Images: []carry.ImportImage{}}
	shown := newProgress(i.p.stderr)
	defer shown.end()
	told := false
	if in := g.inputs[0]; in.isKnown() {
		if err := i.tell(s, in, done, shown); err != nil {
			return done, err
		}
		told = true
	}
	for _, in := range g.inputs {
		done.Files = append(done.Files, in.path)
		if i.DryRun && told {
			continue
		}
		if err := i.bring(s, in, shown); err != nil {
			return done, err
		}
	}
	if !told { // a layout from standard input may tell at its end
		if err := i.tell(s, g.inputs[0], done, shown); err != nil {
			return done, err
		}
	}
	shown.end()
	if !i.DryRun {
		report, err := s.publish(i.p.ctx)
		if err != nil {
			return done, err
		}
		done.Images, done.Unpinned = report.Images, append(done.Unpinned, report.Unpinned...)
	}
	return done, i.report(done)
}

// tell tells the daemon what the files say about themselves, and waits until it has reserved
// the space.
func (i *importer) tell(s *importSession, in *input, done *imported, shown *progress) error {
	plan, err := s.tell(i.p.ctx, carry.ImportLayout{Documents: in.documents(), Blobs: in.blobs}, shown)
	done.SignedBy, done.Space, done.Unpinned = plan.SignedBy, plan.Space, plan.Unpinned
	if plan.Images != nil {
		done.Images = plan.Images
	}
	return err
}

// bring sends the blobs of a file that the daemon lacks.
func (i *importer) bring(s *importSession, in *input, shown *progress) error {
	r, err := in.reader()
	if err != nil {
		return err
	}
	for {
		b, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		in.note(b)
		if i.DryRun || !s.lacks(b.Digest) {
			continue
		}
		if err := s.put(i.p.ctx, b, r, shown); err != nil {
			return err
		}
	}
}

// report prints what was done with a bundle, and returns an error if an image was not imported.
func (i *importer) report(done *imported) error {
	var failed []string
	for _, image := range done.Images {
		if image.State == carry.Failed {
			failed = append(failed, image.Name+": "+image.Error)
		}
	}
	if !i.JSON {
		if err := i.print(done); err != nil {
			return err
		}
	}
	if failed != nil {
		return errors.New(strings.Join(failed, "\n"))
	}
	return nil
}

func (i *importer) print(done *imported) error {
	t := new(table)
	t.add("IMAGE", "DIGEST", "PLATFORMS", "STATE")
	for _, image := range done.Images {
		t.add(image.Name, shortDigest(image.Digest), platformsOf(image.Platforms), i.state(image))
	}
	if err := t.write(i.p.stdout, terminalWidth(i.p.stdout)); err != nil {
		return err
	}
	warned := make(map[string]bool) // one for all images of a registry
	for _, image := range done.Images {
		if image.Warning != "" && !warned[image.Warning] {
			warned[image.Warning] = true
			fmt.Fprintln(i.p.stderr, "larder: warning:", image.Warning)
		}
	}
	for _, image := range done.Unpinned {
		if _, err := fmt.Fprintln(i.p.stdout, "unpinned", image); err != nil {
			return err
		}
	}
	if done.Space == nil {
		return nil
	}
	_, err := fmt.Fprintln(i.p.stdout, sumOf(*done.Space))
	return err
}

func (i *importer) state(image carry.ImportImage) string {
	switch {
	case image.State == carry.Waiting:
		var parts []string
		for _, n := range image.Parts {
			parts = append(parts, fmt.Sprint(n))
		}
		return "waits for part " + strings.Join(parts, ", ")
	case image.State == carry.Imported && !i.NoPin:
		return "imported, pinned"
	}
	return string(image.State)
}

// sumOf is the arithmetic of an import.
func sumOf(s cache.ImportSpace) string {
	most := "the cache has no limit"
	if s.MaxSize > 0 {
		most = "of " + format.Size(s.MaxSize) + " that the cache may have"
	}
	return fmt.Sprintf("%d blobs with %s, %s of which were here; pins take %s, %s", s.Blobs, format.Size(s.Bytes), format.Size(s.Here), format.Size(s.Pinned+s.Added), most)
}

// importSession is an import in the daemon.
type importSession struct {
	*session
	lacking map[digest.Digest]bool // nil as long as the daemon has not said
	done    int64                  // bytes that were sent
	total   int64                  // to be sent; 0 if it is not known
}

func openImport(ctx context.Context, client *client, req carry.ImportRequest) (*importSession, error) {
	opened, err := client.open(ctx, "imports", req)
	if err != nil {
		return nil, err
	}
	var line carry.ImportSession
	if err := opened.next(ctx, &line); err != nil {
		opened.close()
		return nil, err
	}
	opened.begun(line.ID)
	return &importSession{session: opened}, nil
}

// tell sends a layout, and returns what the daemon says about it.
func (s *importSession) tell(ctx context.Context, layout carry.ImportLayout, shown *progress) (carry.ImportPlan, error) {
	answer, err := s.client.open(ctx, s.what+"/layout", layout)
	if err != nil {
		return carry.ImportPlan{}, err
	}
	defer answer.close()
	for {
		var plan carry.ImportPlan
		if err := answer.next(ctx, &plan); err != nil {
			return plan, err
		}
		switch {
		case plan.Error != "":
			return plan, errors.New(plan.Error)
		case plan.Progress != nil:
			shown.at(plan.Progress.Done, plan.Progress.Total)
			continue
		}
		s.lacking = make(map[digest.Digest]bool)
		for _, d := range plan.Lacking {
			s.lacking[d] = true
		}
		if plan.Space != nil {
			s.total = plan.Space.Bytes - plan.Space.Here
		}
		return plan, nil
	}
}

// lacks reports whether the daemon lacks a blob. It may not know yet.
func (s *importSession) lacks(d digest.Digest) bool { return s.lacking == nil || s.lacking[d] }

// put sends a blob from a reader.
func (s *importSession) put(ctx context.Context, b bundle.Blob, r io.Reader, shown *progress) error {
	if b.Size == 0 {
		return nil // every store has it
	}
	u := newUpload(io.LimitReader(r, b.Size), func(n int) {
		s.done += int64(n)
		shown.at(s.done, max(s.total, s.done))
	})
	resp, err := s.client.sendBody(ctx, http.MethodPut, s.what+"/blobs/"+string(b.Digest), nil, u, b.Size)
	if err == nil {
		err = resp.Body.Close()
	}
	<-u.closed // the transport may still read, and the next blob comes from the same reader
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case u.err != nil && !errors.Is(u.err, io.EOF):
		return u.err
	case err != nil:
		return &bundle.EntryError{Name: "blobs/" + strings.Replace(string(b.Digest), ":", "/", 1), Err: err}
	}
	delete(s.lacking, b.Digest)
	return nil
}

// publish has the daemon make the images visible.
func (s *importSession) publish(ctx context.Context) (report carry.ImportReport, err error) {
	resp, err := s.client.send(ctx, http.MethodPost, s.what+"/publish", nil)
	if err != nil {
		if ctx.Err() != nil {
			err = errInterrupted
		}
		return report, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
		return report, fmt.Errorf("read the daemon's answer: %w", err)
	}
	slices.SortFunc(report.Images, func(a, b carry.ImportImage) int { return cmp.Compare(a.Name, b.Name) })
	return report, nil
}
