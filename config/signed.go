package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// checkSigned checks which signatures a rule counts. A file that cannot be read is a mistake: each image
// would be refused.
func (r *policyRules) checkSigned(key string, s *Signed) {
	if s.Notation == nil && s.Cosign == nil {
		r.reject(key, "expected notation or cosign, or both of which one is enough")
	}
	if n := s.Notation; n != nil && !r.failed(key+".notation") {
		r.checkReadable(key+".notation.trust_policy", n.TrustPolicy, "missing; expected the file with notation's trust policy")
		r.checkReadable(key+".notation.trust_store", n.TrustStore, "missing; expected the folder with notation's trust stores")
	}
	if s.Cosign != nil && !r.failed(key+".cosign") {
		r.checkCosign(key+".cosign", s.Cosign)
	}
}

func (r *policyRules) checkCosign(key string, s *Cosign) {
	if len(s.Keys) == 0 && len(s.Identities) == 0 && !r.failed(key+".keys") && !r.failed(key+".identities") {
		r.reject(key, "expected keys, or identities with a trusted_root")
	}
	for i, file := range s.Keys {
		if !strings.HasPrefix(file, schemeKMS) {
			r.checkReadable(fmt.Sprintf("%s.keys[%d]", key, i), file, "")
		}
	}
	if len(s.Identities) > 0 || s.TrustedRoot != "" {
		r.checkReadable(key+".trusted_root", s.TrustedRoot, "missing; expected the file that identities are verified with, such as \"cosign trusted-root create\" makes")
	}
	for i, one := range s.Identities {
		at := fmt.Sprintf("%s.identities[%d]", key, i)
		if (one.Issuer == "" || one.Subject == "") && !r.failed(at) && !r.failed(at+".issuer") && !r.failed(at+".subject") {
			r.reject(at, "expected both issuer and subject")
		}
	}
}

// checkReadable rejects a file or a folder that this process cannot read. missing is the mistake of a
// key that is not set.
func (r *policyRules) checkReadable(key, path, missing string) {
	switch {
	case r.failed(key) || path == "" && missing == "":
		return
	case path == "":
		r.reject(key, missing)
		return
	}
	f, err := os.Open(path)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		r.reject(key, fmt.Sprintf("%s cannot be read: %v", path, err))
		return
	}
	_ = f.Close() // nothing was written
}
