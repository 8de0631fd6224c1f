// Package bundle is the format in which images are carried to a site by disk: an OCI image
// layout in a plain tar, with a description that can be signed. FORMAT.md documents it. The
// package also reads the OCI layouts that other tools write.
//
// The package knows streams only: it opens no file, keeps no blob, and asks no registry.
//
// # Writing
//
// [NewPlan] decides what goes into a bundle and its parts, from the manifests that the caller
// gives it. [Plan.Part] is one part, whose bytes depend on the plan and the signature alone.
// [Part.Write] writes it, and can continue where an interrupted one ended, see [Part.Kept].
//
// # Reading
//
// [NewReader] and [NewFolderReader] read the beginning, up to the first blob. Of a bundle,
// the description and its signature are known then, before any blob is taken. [Reader.Next]
// goes from blob to blob. Content that is not read is skipped. After the last blob,
// [Reader.Layout] tells the images, and [Layout.Resolve] what each one consists of.
//
// A Reader over an [io.Seeker] skips without reading. So an importer can go through a file
// twice: once to learn sizes and names, and again for the content.
//
// # Bad input
//
// Every input is refused or read within 64 MB of memory. The error is an [EntryError] where
// one entry is to blame. Content is not hashed by a Reader, as the store that takes it does
// that; [Verify] does it for others.
package bundle
