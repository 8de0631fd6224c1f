// Package bring brings images whole into the cache, before any client asks for them:
// "larder warm" does so by command, and what must always be here is brought in the
// background.
//
// An image is whole for some platforms when its manifest is here and, if that is an index, the
// manifest of each of these platforms, with all configurations and layers. [Bringer.Resolve]
// asks the upstream what a tag names, [Bringer.Fetch] fetches what is missing of a digest, and
// [Bringer.IsWhole] asks nobody. [Bringer.Bring] does all of that for several images, and then
// has clients get what was fetched: a tag names the new image once that is whole.
// [Bringer.FetchMissing] fetches the parts of an image that a caller lists.
//
// Content is fetched through the proxy, so that it shares the fills of clients, and is proven,
// bounded and resumed as theirs is. What an interruption leaves is resumed by the next fetch.
// A context of cache.Unattended lets requests of clients go first.
//
// [Bringer.AddTo] serves it to commands. The package keeps no state and no goroutine outlives
// the call that started it.
package bring
