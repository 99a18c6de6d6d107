#!/usr/bin/env bash
# Types, lint, unit tests, the app and the artifacts' pages in headless Chromium: tests/run.sh MODELS PAGES, or `make test-web`.
# Installs what it needs where it can. A suite that cannot run here is named in one line, and nothing else fails for it.
set -euo pipefail
export WEB_TEST_MODELS REPORT_TEST_PAGES
WEB_TEST_MODELS=$(realpath "$1")
REPORT_TEST_PAGES=$(realpath "$2")
cd "$(dirname "$0")/.."

if ! command -v npm > /dev/null; then
  echo "web suite not run: npm is missing (install Node.js 20.19 or later)"
  exit 0
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  if ! npm ci --no-audit --no-fund --silent; then
    echo "web suite not run: npm ci could not install its packages (no registry?)"
    exit 0
  fi
fi
npm run --silent check
npm run --silent unit

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ] && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } > /dev/null 2>&1 || true
  chromium=$(command -v chromium || true)
fi
if [ -z "$chromium" ]; then
  echo "web end-to-end suite not run: no Chromium (apt-get install chromium, or set CHROMIUM=/path/to/it)"
  exit 0
fi
npm run --silent build
CHROMIUM=$chromium npm run --silent e2e
