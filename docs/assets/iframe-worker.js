/* A browser starts no workers for pages that are opened from the disk. There, the search
   runs in a hidden frame; the theme looks for the class by this name. */
if (location.protocol === 'file:') {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.scope = this.frame.contentWindow;
      const page = this.scope.document;
      page.open();
      page.write('<html><body></body></html>');
      page.close();
      const load = (source) => new Promise((resolve, reject) => {
        const script = page.createElement('script');
        script.src = source;
        script.onload = resolve;
        script.onerror = reject;
        page.body.append(script);
      });
      this.scope.importScripts = (...sources) =>
        sources.reduce((before, source) => before.then(() => load(source)), Promise.resolve());
      this.scope.postMessage = (data) => this.dispatchEvent(
        new MessageEvent('message', { data: structuredClone(data) }));
      this.started = load(url);
    }

    postMessage(data) {
      this.started.then(() => this.scope.dispatchEvent(
        new MessageEvent('message', { data: structuredClone(data) })));
    }

    terminate() {
      this.frame.remove();
    }
  };
  window.Worker = window.IFrameWorker;
}
