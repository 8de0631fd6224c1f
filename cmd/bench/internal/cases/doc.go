// Package cases is what the bench measures: pulls of warm and cold images, small requests, reads of ranges, pulls beside
// other work, and memory. All has them in the order of the table.
package cases
