// Pictures and videos of a record stay on the server until someone asks for them: each is a logged look.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const section = document.getElementById("fp-media");
    const button = document.getElementById("fp-show-media");
    if (!section || !button) {
        return;
    }
    const failed = section.querySelector(".fp-media-failed");
    button.addEventListener("click", () => {
        for (const element of section.querySelectorAll("[data-src]")) {
            element.addEventListener("error", () => {
                element.closest(".fp-tile").classList.add("fp-broken");
                failed.hidden = false;
            });
            element.src = element.dataset.src;
        }
        for (const link of section.querySelectorAll("[data-href]")) {
            link.href = link.dataset.href;
        }
        for (const element of section.querySelectorAll(".fp-clear")) {
            element.hidden = false;
        }
        section.classList.add("fp-shown");
        button.remove();
        // The keyboard stays where the eye is.
        const first = section.querySelector("video, a[href]");
        if (first) {
            first.focus({preventScroll: true});
        }
    });
});
