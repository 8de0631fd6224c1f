// Package signed decides whether an image is signed as a rule demands: by notation, with a trust policy
// and a trust store, or by cosign, with keys, or with a trusted root and identities. One good signature
// is enough.
//
// notation-go and sigstore-go verify; this package finds the signatures, bounds what it reads, and
// translates what the libraries say. Signatures are referrers of the image (OCI 1.1), and for cosign
// also the manifest with the tag sha256-<hex>.sig (cosign, specs/SIGNATURE_SPEC.md).
//
// A signature counts if notation or cosign itself would accept it, with these differences:
//   - cosign accepts any attestation as a signature if its format is a bundle. Here its predicate has to be
//     that of a signature, since the signer of an attestation does not always approve the image.
//   - Without a trusted root, the transparency log is not asked, as with cosign's --insecure-ignore-tlog.
//     With one, every kind of evidence that the root can verify is demanded.
//   - A service for revocation that does not answer is an error, not a refusal.
//
// Nothing here uses the network, except through the interfaces and the HTTP client of [Options], and
// except for keys in AWS KMS, whose public half is read once.
package signed
