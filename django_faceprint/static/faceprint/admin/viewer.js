// Up to three pictures side by side, enlarged and moved together. They are drawn from those that the page has
// already been given, so that comparing them is no new look and needs no request.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const dialog = document.getElementById("fp-viewer");
    const section = document.getElementById("fp-media");
    const opener = document.getElementById("fp-compare");
    if (!dialog || !section || !opener) {
        return;
    }
    const MOST = 3, LARGEST = 16, LONGEST_SIDE = 4096;
    const panes = dialog.querySelector(".fp-panes");
    const choice = dialog.querySelector(".fp-viewer-choice");
    const together = document.getElementById("fp-together");
    const output = dialog.querySelector("output");
    let sources = [];
    let chosen = [];
    let views = [];

    const isReady = (place) => place instanceof HTMLVideoElement
        ? place.readyState >= 2 : place.complete && place.naturalWidth > 0;
    const clamp = (value, most) => Math.min(Math.max(value, -most), most);

    // --- where each picture stands -------------------------------------------------------------

    const apply = () => {
        for (const {canvas, place} of views) {
            // By script, not by an attribute: a strict Content-Security-Policy allows it.
            canvas.style.transform = `translate(${place.x * 100}%, ${place.y * 100}%) scale(${place.scale})`;
        }
        if (views.length) {
            output.value = `${Math.round(views[0].place.scale * 100)} %`;
        }
    };
    const moved = (view, act) => {
        const targets = together.checked || !view ? views : [view];
        for (const {place} of targets) {
            act(place);
            const most = (place.scale - 1) / 2;
            place.x = clamp(place.x, most);
            place.y = clamp(place.y, most);
        }
        apply();
    };
    // At (x, y), counted from the middle in widths and heights of a pane, the picture stays where it is.
    const zoom = (view, factor, x = 0, y = 0) => moved(view, (place) => {
        const scale = Math.min(Math.max(place.scale * factor, 1), LARGEST);
        place.x = x - (x - place.x) * scale / place.scale;
        place.y = y - (y - place.y) * scale / place.scale;
        place.scale = scale;
    });
    const shift = (view, x, y) => moved(view, (place) => {
        place.x += x;
        place.y += y;
    });
    const reset = (view) => moved(view, (place) => Object.assign(place, {scale: 1, x: 0, y: 0}));

    // --- hands ----------------------------------------------------------------------------------

    const listen = (view) => {
        const {pane} = view;
        const at = (event) => {
            const box = pane.getBoundingClientRect();
            return [(event.clientX - box.left) / box.width - .5, (event.clientY - box.top) / box.height - .5];
        };
        const fingers = new Map();
        const spread = () => {
            const [[ax, ay], [bx, by]] = [...fingers.values()];
            return {distance: Math.hypot(ax - bx, ay - by) || .001, x: (ax + bx) / 2, y: (ay + by) / 2};
        };
        pane.addEventListener("wheel", (event) => {
            event.preventDefault();
            const lines = event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
            zoom(view, Math.exp(-lines * .0015), ...at(event));
        }, {passive: false});
        pane.addEventListener("dblclick", (event) => {
            if (view.place.scale > 1) {
                reset(view);
            } else {
                zoom(view, 2.5, ...at(event));
            }
        });
        pane.addEventListener("pointerdown", (event) => {
            pane.setPointerCapture(event.pointerId);
            fingers.set(event.pointerId, at(event));
        });
        pane.addEventListener("pointermove", (event) => {
            if (!fingers.has(event.pointerId)) {
                return;
            }
            const [x, y] = at(event);
            if (fingers.size === 2) {
                const before = spread();
                fingers.set(event.pointerId, [x, y]);
                const after = spread();
                shift(view, after.x - before.x, after.y - before.y);
                zoom(view, after.distance / before.distance, after.x, after.y);
            } else {
                const [lastX, lastY] = fingers.get(event.pointerId);
                fingers.set(event.pointerId, [x, y]);
                shift(view, x - lastX, y - lastY);
            }
        });
        for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
            pane.addEventListener(end, (event) => fingers.delete(event.pointerId));
        }
    };
    const KEYS = {
        "+": (view) => zoom(view, 1.25), "=": (view) => zoom(view, 1.25), "-": (view) => zoom(view, .8),
        "0": reset,
        "ArrowLeft": (view) => shift(view, .08, 0), "ArrowRight": (view) => shift(view, -.08, 0),
        "ArrowUp": (view) => shift(view, 0, .08), "ArrowDown": (view) => shift(view, 0, -.08),
    };
    dialog.addEventListener("keydown", (event) => {
        if (KEYS[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
            event.preventDefault();
            KEYS[event.key](views.find(({pane}) => pane === document.activeElement));
        }
    });
    dialog.querySelector(".fp-viewer-bar").addEventListener("click", (event) => {
        const acts = {
            "in": () => zoom(null, 1.25), "out": () => zoom(null, .8), "whole": () => reset(null),
            "close": () => dialog.close(),
        };
        acts[event.target.dataset.zoom]?.();
    });
    together.addEventListener("change", () => {
        if (together.checked && views.length) {
            // The others come to where the first one is.
            views.slice(1).forEach(({place}) => Object.assign(place, views[0].place));
            apply();
        }
    });

    // --- what is shown --------------------------------------------------------------------------

    const draw = (source) => {
        const video = source instanceof HTMLVideoElement;
        const [width, height] = video ? [source.videoWidth, source.videoHeight] : [source.naturalWidth, source.naturalHeight];
        const share = Math.min(1, LONGEST_SIDE / Math.max(width, height));
        const canvas = document.createElement("canvas");
        canvas.width = Math.max(Math.round(width * share), 1);
        canvas.height = Math.max(Math.round(height * share), 1);
        canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
        return canvas;
    };
    const arrange = () => {
        views = chosen.map((source) => {
            const pane = document.createElement("div");
            const frame = document.createElement("div");
            const name = document.createElement("p");
            const canvas = draw(source);
            pane.className = "fp-pane";
            frame.className = "fp-pane-frame";
            frame.tabIndex = 0;
            frame.setAttribute("role", "img");
            frame.setAttribute("aria-label", source.dataset.name);
            name.textContent = source.dataset.name;
            frame.append(canvas);
            pane.append(frame, name);
            const view = {pane: frame, canvas, place: {scale: 1, x: 0, y: 0}, whole: pane};
            listen(view);
            return view;
        });
        panes.replaceChildren(...views.map(({whole}) => whole));
        panes.dataset.count = views.length;
        apply();
    };
    const offer = () => {
        const labels = sources.map((source, index) => {
            const label = document.createElement("label");
            const box = document.createElement("input");
            box.type = "checkbox";
            box.value = index;
            box.checked = chosen.includes(source);
            label.append(box, ` ${source.dataset.name}`);
            return label;
        });
        choice.replaceChildren(choice.querySelector("legend"), ...labels);
    };
    choice.addEventListener("change", (event) => {
        const source = sources[Number(event.target.value)];
        if (event.target.checked) {
            chosen = [...chosen, source].slice(-MOST);
        } else if (chosen.length > 1) {
            chosen = chosen.filter((one) => one !== source);
        }
        for (const box of choice.querySelectorAll("input")) {
            box.checked = chosen.includes(sources[Number(box.value)]);
        }
        arrange();
    });
    const open = (first) => {
        sources = [...section.querySelectorAll("[data-src][src]")].filter(isReady);
        if (!sources.length || dialog.open) {
            return;
        }
        const compared = sources.filter((source) => source.closest(".fp-compared"));
        chosen = first ? [first] : (compared.length ? compared : sources).slice(0, MOST);
        together.checked = true;
        offer();
        dialog.showModal();
        arrange();
        views[0].pane.focus();
    };
    dialog.addEventListener("close", () => {
        // Nothing of a face stays behind a closed window.
        panes.replaceChildren();
        views = chosen = sources = [];
    });
    opener.addEventListener("click", () => open(null));
    section.addEventListener("click", (event) => {
        const picture = event.target.closest("button.fp-clear")?.querySelector("img");
        if (picture && isReady(picture)) {
            open(picture);
        }
    });
});
