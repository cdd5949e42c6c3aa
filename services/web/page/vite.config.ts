import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

// Every browser that knows what the page needs knows WOFF2.
const onlyWoff2: Plugin = {
  name: "only-woff2",
  generateBundle(_, bundle) {
    for (const name of Object.keys(bundle)) if (/\.(ttf|woff)$/.test(name)) delete bundle[name];
  },
};

// What the policy of the page forbids must not be made: inline scripts, data: fonts.
export default defineConfig({
  plugins: [svelte(), onlyWoff2],
  base: "/ui/",
  build: {
    outDir: "../headrace_web/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
