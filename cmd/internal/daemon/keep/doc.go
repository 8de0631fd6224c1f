// Package keep keeps images here that the configuration names: they are fetched before anyone
// asks, followed when their tags move, and pinned.
//
// [New] reads the configuration before the store is opened, since the store asks
// [Keeper.Pins] what to pin and [Keeper.ServesRecorded] which tags it serves without asking. [Keeper.Run]
// then follows each image by itself:
//
//   - It asks the upstream what the tag names. If that is whole here, it rests.
//   - Else it fetches the manifests, which tell the size, and pins the new image beside the old
//     one. If both do not fit, the old one stays, and that is the image's state.
//   - Then it fetches the rest, as background work. What an interruption leaves is resumed.
//   - Once all is here, the tag names the new image, and the old one is let go.
//
// Clients get the old image until then (switch: whole), or what the upstream says (at_once);
// in both cases the old one is held until the new one is whole.
//
// Run owns all goroutines. Nothing is called under Keeper.mu.
package keep
