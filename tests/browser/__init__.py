"""The pages in a real browser: headless Chromium, driven over the Chrome DevTools Protocol."""
