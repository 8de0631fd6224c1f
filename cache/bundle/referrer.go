package bundle

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// addReferrer adds what a referrer consists of. It ensures that the referrer is what it is
// said to be, if it is there.
func (r *reach) addReferrer(ref Referrer) error {
	if err := r.add(ref.Digest, ref.Size, 0); err != nil {
		return err
	}
	mediaType, ok := r.mediaType[ref.Digest]
	if !ok {
		return nil // missing
	}
	raw, err := r.manifest(ref.Digest)
	if err != nil {
		return err
	}
	subject, artifactType, err := parseReferrer(raw)
	if err == nil && (subject != ref.Subject || artifactType != ref.ArtifactType || mediaType != ref.MediaType) {
		err = fmt.Errorf("%s says other things about it than its manifest", DescriptionFile)
	}
	return err
}

// completeReferrer is addReferrer for one of which only the digest is known.
func (r *reach) completeReferrer(ref *Referrer) error {
	if err := r.add(ref.Digest, -1, 0); err != nil {
		return err
	}
	raw, err := r.manifest(ref.Digest)
	if err != nil {
		return err
	}
	ref.MediaType, ref.Size = r.mediaType[ref.Digest], r.seen[ref.Digest]
	if ref.Subject, ref.ArtifactType, err = parseReferrer(raw); err == nil && ref.Subject == "" {
		err = errors.New("it has no subject")
	}
	return err
}

// parseReferrer returns what a manifest refers to, or "", and of which type it is: its
// artifactType, or that of its config, as the distribution specification has it.
func parseReferrer(raw []byte) (subject digest.Digest, artifactType string, err error) {
	var doc struct {
		ArtifactType string `json:"artifactType"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Subject struct {
			Digest digest.Digest `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", "", err
	}
	if doc.ArtifactType == "" {
		doc.ArtifactType = doc.Config.MediaType
	}
	if doc.Subject.Digest != "" {
		err = checkDigest(doc.Subject.Digest)
	}
	return doc.Subject.Digest, doc.ArtifactType, err
}
