package ecrtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lifecycleRule is a rule of a lifecycle policy: user guide, "Lifecycle policy
// parameters".
type lifecycleRule struct {
	RulePriority int    `json:"rulePriority"`
	Description  string `json:"description"`
	Selection    struct {
		TagStatus      string   `json:"tagStatus"`
		TagPatternList []string `json:"tagPatternList"`
		TagPrefixList  []string `json:"tagPrefixList"`
		StorageClass   string   `json:"storageClass"`
		CountType      string   `json:"countType"`
		CountUnit      string   `json:"countUnit"`
		CountNumber    int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type               string `json:"type"`
		TargetStorageClass string `json:"targetStorageClass"`
	} `json:"action"`
}

// Lifecycle is what a run of a lifecycle policy did, each sorted by digest.
type Lifecycle struct {
	Expired  []digest.Digest // which are no more; their blobs stay
	Archived []digest.Digest
}

// RunLifecycle carries out a repository's lifecycle policy at once, as ECR does
// within a day of an image's meeting it. Without a policy it does nothing.
func (s *Server) RunLifecycle(repo string) (Lifecycle, error) {
	now := s.opts.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[repo]
	if r == nil {
		return Lifecycle{}, fmt.Errorf("running the lifecycle policy of %s: %w", repo, fs.ErrNotExist)
	}
	if r.lifecycle == "" {
		return Lifecycle{}, nil
	}
	var policy struct {
		Rules []lifecycleRule `json:"rules"`
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(r.lifecycle)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&policy); err != nil {
		return Lifecycle{}, fmt.Errorf("running the lifecycle policy of %s: %w", repo, err)
	}
	slices.SortFunc(policy.Rules, func(a, b lifecycleRule) int { return cmp.Compare(a.RulePriority, b.RulePriority) })
	e := evaluation{repo: r, now: now, rules: policy.Rules, images: r.lifecycleImages()}
	expired, archived, err := e.decide()
	if err != nil {
		return Lifecycle{}, fmt.Errorf("running the lifecycle policy of %s: %w", repo, err)
	}
	for dgst := range archived {
		st := r.states[dgst]
		st.Status, st.Archived = archivedStatus, now
		r.states[dgst] = st
	}
	for dgst := range expired {
		r.remove(dgst)
	}
	return Lifecycle{slices.Sorted(maps.Keys(expired)), slices.Sorted(maps.Keys(archived))}, nil
}

const archivedStatus = "ARCHIVED"

// remove takes an image away. The caller holds Server.mu.
func (r *repository) remove(dgst digest.Digest) {
	if subject, desc, ok := r.manifests[dgst].referrer(); ok {
		r.referrers[subject] = slices.DeleteFunc(r.referrers[subject], func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest })
	}
	delete(r.manifests, dgst)
	delete(r.states, dgst)
	maps.DeleteFunc(r.tags, func(_ string, d digest.Digest) bool { return d == dgst })
}

// lifecycleImage is an image as the rules see it.
type lifecycleImage struct {
	ImageState
	digest  digest.Digest
	tags    []string
	subject digest.Digest // that it refers to, in the repository, or ""
}

// lifecycleImages returns the images, newest first.
func (r *repository) lifecycleImages() []lifecycleImage {
	tags := make(map[digest.Digest][]string)
	for tag, dgst := range r.tags {
		tags[dgst] = append(tags[dgst], tag)
	}
	var images []lifecycleImage
	for dgst, m := range r.manifests {
		img := lifecycleImage{ImageState: r.states[dgst], digest: dgst, tags: tags[dgst]}
		if subject, _, ok := m.referrer(); ok {
			if _, here := r.manifests[subject]; here {
				img.subject = subject
			}
		}
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b lifecycleImage) int {
		return cmp.Or(b.Pushed.Compare(a.Pushed), cmp.Compare(a.digest, b.digest))
	})
	return images
}

// evaluation is one run of a policy over a repository, whose lock is held.
type evaluation struct {
	repo   *repository
	now    time.Time
	rules  []lifecycleRule  // by priority
	images []lifecycleImage // newest first
}

type digests = map[digest.Digest]bool

// decide evaluates all rules, and then applies them by priority: the first whose
// tagging an image has is the only one that acts on it, or leaves it alone.
func (e evaluation) decide() (expired, archived digests, err error) {
	expired, archived = make(digests), make(digests)
	decided := make(digests)
	for _, rule := range e.rules {
		selected, marked, err := e.apply(rule)
		if err != nil {
			return nil, nil, fmt.Errorf("rule %d: %w", rule.RulePriority, err)
		}
		for _, img := range selected {
			if decided[img.digest] {
				continue
			}
			decided[img.digest] = true
			switch {
			case !marked[img.digest]:
			case rule.Action.Type == "transition":
				archived[img.digest] = true
			default:
				expired[img.digest] = true
			}
		}
	}
	e.follow(expired)
	e.follow(archived)
	return expired, archived, nil
}

// apply returns the images with a rule's tagging, and which of them it marks.
func (e evaluation) apply(rule lifecycleRule) (selected []lifecycleImage, marked digests, err error) {
	sel := rule.Selection
	if rule.Action.Type != "expire" && rule.Action.Type != "transition" {
		return nil, nil, fmt.Errorf("no action %q", rule.Action.Type)
	}
	for _, img := range e.images {
		if img.subject == "" && rule.selects(img) { // a referrer has no fate of its own
			selected = append(selected, img)
		}
	}
	marked = make(digests)
	age := time.Duration(sel.CountNumber) * 24 * time.Hour
	for i, img := range selected {
		switch sel.CountType {
		case "imageCountMoreThan":
			marked[img.digest] = i >= sel.CountNumber
		case "sinceImagePushed":
			marked[img.digest] = e.now.Sub(img.Pushed) > age
		case "sinceImagePulled":
			used := img.Pulled
			if used.IsZero() {
				used = img.Pushed
			}
			marked[img.digest] = e.now.Sub(used) > age
		case "sinceImageTransitioned":
			marked[img.digest] = e.now.Sub(img.Archived) > age
		default:
			return nil, nil, fmt.Errorf("no count type %q", sel.CountType)
		}
	}
	return selected, marked, nil
}

// selects tells whether an image has the tagging, and the storage class, that a
// rule is about. Of several patterns each must match one of the tags.
func (rule lifecycleRule) selects(img lifecycleImage) bool {
	sel := rule.Selection
	if (sel.StorageClass == "archive") != (img.Status == archivedStatus) {
		return false
	}
	switch sel.TagStatus {
	case "any":
		return true
	case "untagged":
		return len(img.tags) == 0
	}
	patterns := slices.Clone(sel.TagPatternList)
	for _, prefix := range sel.TagPrefixList {
		patterns = append(patterns, prefix+"*")
	}
	for _, pattern := range patterns {
		if !slices.ContainsFunc(img.tags, func(tag string) bool { return matches(pattern, tag) }) {
			return false
		}
	}
	return len(patterns) > 0
}

// follow adds what goes with its subject, and then takes out what something
// that stays needs: the manifests in an index, and what is a referrer of either.
func (e evaluation) follow(gone digests) {
	e.settle(func(img lifecycleImage) []digest.Digest {
		if img.subject != "" && gone[img.subject] && !gone[img.digest] {
			return []digest.Digest{img.digest}
		}
		return nil
	}, func(dgst digest.Digest) { gone[dgst] = true })
	e.settle(func(img lifecycleImage) []digest.Digest {
		var stay []digest.Digest
		if img.subject != "" && !gone[img.subject] && gone[img.digest] {
			stay = append(stay, img.digest)
		}
		if !gone[img.digest] {
			for _, child := range e.repo.manifests[img.digest].children() {
				if gone[child] {
					stay = append(stay, child)
				}
			}
		}
		return stay
	}, func(dgst digest.Digest) { delete(gone, dgst) })
}

// settle changes what find returns for any image, until it returns nothing.
func (e evaluation) settle(find func(lifecycleImage) []digest.Digest, change func(digest.Digest)) {
	for changed := true; changed; {
		changed = false
		for _, img := range e.images {
			for _, dgst := range find(img) {
				change(dgst)
				changed = true
			}
		}
	}
}
