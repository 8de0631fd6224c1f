// The panel of the configuration that is in use.

import { cell, rows } from "./dom.js";

export const settings = {
  settings: (all) => rows("settings", all.filter((s) => s.value !== ""), (s) => s.key, (s) => [cell("", "mono", s.key), cell("", "", s.value)]),
};
