// Pictures and videos of a record stay on the server until someone asks for them: each is a logged look.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const section = document.getElementById("fp-media");
    const button = document.getElementById("fp-show-media");
    if (!section || !button) {
        return;
    }
    const failed = section.querySelector(".fp-media-failed");
    const compare = document.getElementById("fp-compare");
    const places = [...section.querySelectorAll("[data-src]")];
    const waiting = new Set(places);

    const settle = (place, broken) => {
        const tile = place.closest(".fp-tile");
        tile.querySelector(".fp-loading").hidden = true;
        tile.querySelector(".fp-failed").hidden = !broken;
        tile.classList.toggle("fp-broken", broken);
        tile.querySelector(".fp-clear").hidden = broken;
        const tools = tile.querySelector(".fp-video-tools");
        if (tools) {
            tools.hidden = broken;
        }
        failed.hidden = !section.querySelector(".fp-broken");
        compare.hidden = !section.querySelector(".fp-tile:not(.fp-broken) img[data-src][src]");
        waiting.delete(place);
        if (!waiting.size) {
            section.dispatchEvent(new Event("fp:settled"));
        }
    };
    const load = (place) => {
        const tile = place.closest(".fp-tile");
        tile.classList.remove("fp-broken");
        tile.querySelector(".fp-failed").hidden = true;
        tile.querySelector(".fp-loading").hidden = false;
        // Shown while it loads: a picture without a place would never be decoded.
        tile.querySelector(".fp-clear").hidden = false;
        place.removeAttribute("src");
        place.src = place.dataset.src;
    };

    for (const place of places) {
        place.addEventListener(place instanceof HTMLVideoElement ? "loadedmetadata" : "load", () => settle(place, false));
        place.addEventListener("error", () => {
            if (place.hasAttribute("src")) {
                settle(place, true);
            }
        });
    }
    section.addEventListener("click", (event) => {
        if (event.target.matches(".fp-retry")) {
            load(event.target.closest(".fp-tile").querySelector("[data-src]"));
        }
    });
    button.addEventListener("click", () => {
        section.classList.add("fp-shown");
        places.forEach(load);
        // The keyboard stays where the eye is.
        section.querySelector(".fp-clear")?.focus({preventScroll: true});
        button.remove();
    });

    // Speed, and one frame after the other.
    const FRAME = 1 / 25;
    const step = (video, frames) => {
        video.pause();
        video.currentTime = Math.min(Math.max(video.currentTime + frames * FRAME, 0), video.duration || 0);
    };
    const videos = [...section.querySelectorAll("video[data-src]")];
    let current = videos[0];
    for (const video of videos) {
        const tools = video.closest(".fp-tile").querySelector(".fp-video-tools");
        video.addEventListener("play", () => { current = video; });
        tools.addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
        tools.addEventListener("click", (event) => {
            const frames = Number(event.target.dataset.step);
            if (frames) {
                current = video;
                step(video, frames);
            }
        });
    }
    section.addEventListener("fp:step", (event) => {
        if (current && current.readyState) {
            step(current, event.detail);
        }
    });
});
