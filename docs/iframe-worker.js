// Search runs in a web worker, which browsers refuse to start on a page that is opened from the disk. There, run the
// worker's script in a hidden frame instead, and pass on what is posted to it and by it. The frame has no importScripts,
// which the search of a site in English does not call.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc =
        `<script>postMessage = (data) => parent.postMessage(data, "*")<\/script><script src="${script}"><\/script>`
      this.started = new Promise((done) => frame.addEventListener("load", () => done(frame.contentWindow)))
      window.addEventListener("message", ({ source, data }) => {
        if (source === frame.contentWindow) this.dispatchEvent(new MessageEvent("message", { data }))
      })
      document.body.append(frame)
    }

    postMessage(data) {
      this.started.then((frame) => frame.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
