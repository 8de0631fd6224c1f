package carry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/cache/bundle"
	"github.com/larder-registry/larder/proxy/admin/answer"
	"github.com/larder-registry/larder/upstream/name"
)

// publish makes the images of a session visible that are whole.
func (a *API) publish(w http.ResponseWriter, r *http.Request) error {
	s, done, err := a.imports.use(r)
	if err != nil {
		return err
	}
	defer done()
	report, err := s.publish(r.Context())
	if err != nil {
		return err
	}
	answer.JSON(w, report)
	return nil
}

func (s *importing) publish(ctx context.Context) (report ImportReport, err error) {
	s.mu.Lock()
	layout := s.layout
	s.mu.Unlock()
	if s.request.DryRun {
		return report, errDryRun
	}
	if layout == nil {
		return report, errors.New("the layout of the import is not known yet")
	}
	whole := true
	for tree, err := range layout.Resolve(manifests(s.hold), s.has) {
		image := s.described(tree.Image, Imported)
		switch {
		case err != nil:
			image.State, image.Error = Failed, err.Error()
		case len(tree.Missing) > 0:
			s.tellMissing(&image, tree.Missing)
		default:
			if err := s.publishImage(ctx, tree.Image); err != nil {
				image.State, image.Error = Failed, err.Error()
			}
		}
		whole = whole && image.State == Imported
		report.Images = append(report.Images, image)
	}
	if s.request.Replace == ReplaceAfter && whole {
		report.Unpinned, err = s.unpinOthers(layout)
	}
	return report, err
}

// has reports whether a blob is here.
func (s *importing) has(d digest.Digest) bool {
	blob, err := s.hold.Open(d)
	if err != nil {
		return false
	}
	return blob.Close() == nil
}

// tellMissing says what an image that is not whole waits for.
func (s *importing) tellMissing(image *ImportImage, missing []bundle.Content) {
	s.mu.Lock()
	description := s.description
	s.mu.Unlock()
	image.State = Waiting
	for _, c := range missing {
		var b bundle.Blob
		if description != nil {
			b, _ = description.Blob(c.Digest)
		}
		switch {
		case b.Part > 0:
			image.Parts = append(image.Parts, b.Part)
			continue
		case description != nil && description.IsPresent(c.Digest):
			image.Error = fmt.Sprintf("the site had blob %s when its inventory was taken, and has lost it: export again with a new inventory", c.Digest)
		default:
			image.Error = fmt.Sprintf("it names blob %s, which is not there", c.Digest)
		}
		image.State = Failed
	}
	slices.Sort(image.Parts)
	image.Parts = slices.Compact(image.Parts)
}

// publishImage makes an image visible.
func (s *importing) publishImage(ctx context.Context, image bundle.Image) error {
	parsed, err := parseName(image)
	if err != nil {
		return err
	}
	img := cache.ImportedImage{
		Repository: cache.Repository{Upstream: parsed.Host, Name: parsed.Repository},
		Tag:        parsed.Tag,
		Digest:     image.Digest,
		Confirmed:  image.Confirmed,
		Local:      s.request.AsLocal,
	}
	if !s.request.NoPin {
		img.Bundle = s.request.Bundle
	}
	for _, left := range image.LeftOut {
		img.LeftOut = append(img.LeftOut, left.Digest)
	}
	for _, ref := range image.Referrers {
		img.Referrers = append(img.Referrers, ref.Digest)
	}
	return s.content.Publish(ctx, img)
}

// parseName parses the name of an image. Other tools may write a short one, or only the tag.
func parseName(image bundle.Image) (name.Image, error) {
	if !strings.ContainsAny(image.Name, "/:@") {
		return name.Image{}, fmt.Errorf("%q is only the tag of an image: save it again by its whole name", image.Name)
	}
	parsed, err := name.ParseShortImage(image.Name)
	switch {
	case err != nil:
		return name.Image{}, err
	case parsed.Digest != "" && parsed.Digest != image.Digest:
		return name.Image{}, fmt.Errorf("its name has another digest than its manifest, %s", image.Digest)
	case parsed.Digest != "":
		parsed.Tag = ""
	}
	return parsed, nil
}

// unpinOthers unpins the images of earlier bundles that a layout does not have, and returns
// their names.
func (s *importing) unpinOthers(layout *bundle.Layout) ([]string, error) {
	keep := make(map[string]bool)
	for _, image := range layout.Images {
		if parsed, err := parseName(image); err == nil {
			keep[parsed.String()] = true
		}
	}
	pins, err := s.api.store.Pins()
	if err != nil {
		return nil, err
	}
	var unpinned []string
	for _, pin := range pins {
		if pin.Bundle == "" || keep[pin.Image] {
			continue
		}
		repo, reference, err := parse(pin.Image)
		if err == nil {
			err = s.api.store.Unpin(repo, reference)
		}
		switch {
		case errors.Is(err, cache.ErrConfigured):
			continue // the configuration pins it too
		case err != nil:
			return unpinned, fmt.Errorf("unpin %s: %w", pin.Image, err)
		}
		unpinned = append(unpinned, pin.Image)
	}
	return unpinned, nil
}
